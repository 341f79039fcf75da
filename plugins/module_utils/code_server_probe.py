# SPDX-License-Identifier: Apache-2.0
"""The question to a candidate: do you serve, and do your definitions load?"""

from __future__ import annotations

# Runs inside the candidate. grpcio itself instead of Dagster's client: importing dagster costs a second of CPU. The
# calls are those with which the webserver loads a location (dagster/_core/remote_representation/code_location.py).
SOURCE = r"""
import json, sys, time
import grpc

port, location, deadline = int(sys.argv[1]), sys.argv[2], time.monotonic() + float(sys.argv[3])
MAX = 256 * 1024 * 1024


def varint(number):
    out = b""
    while number > 0x7F:
        out += bytes([number & 0x7F | 0x80])
        number >>= 7
    return out + bytes([number])


def text(field, value):
    raw = value.encode()
    return varint(field << 3 | 2) + varint(len(raw)) + raw


def fields(raw):
    i, found = 0, {}
    def number():
        nonlocal i
        value = shift = 0
        while True:
            byte = raw[i]
            i += 1
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return value
    while i < len(raw):
        key = number()
        if key & 7 == 2:
            size = number()
            found[key >> 3] = raw[i : i + size]
            i += size
        elif key & 7 == 0:
            found[key >> 3] = number()
        else:
            raise ValueError("unexpected wire type")
    return found


def end(**answer):
    print(json.dumps(answer))
    raise SystemExit(0)


def problem(reply):
    chain, each = [], reply
    while isinstance(each, dict) and "message" in each:
        chain.append({"message": each["message"], "stack": each.get("stack") or []})
        each = each.get("cause")
    return chain


def left():
    return max(0.5, deadline - time.monotonic())


channel = grpc.insecure_channel(
    "localhost:%d" % port,
    options=[
        ("grpc.max_receive_message_length", MAX),
        ("grpc.initial_reconnect_backoff_ms", 50),
        ("grpc.min_reconnect_backoff_ms", 50),
        ("grpc.max_reconnect_backoff_ms", 100),
        ("grpc.enable_http_proxy", 0),
    ],
)
health = channel.unary_unary("/grpc.health.v1.Health/Check")
while True:
    try:
        status = fields(health(text(1, "DagsterApi"), timeout=min(5, left()))).get(1)
        if status == 1:
            break
        problem_text = "health status %s" % status
    except grpc.RpcError as error:
        problem_text = "%s: %s" % (error.code().name, error.details())
    if time.monotonic() > deadline:
        end(ok=False, stage="serve", problem=problem_text)
    time.sleep(0.03)
try:
    reply = channel.unary_unary("/api.DagsterApi/ListRepositories")(b"", timeout=left())
    listed = json.loads(fields(reply).get(1, b"null"))
    if not isinstance(listed, dict) or listed.get("__class__") != "ListRepositoriesResponse":
        end(ok=False, stage="definitions", errors=problem(listed), problem=str(listed)[:2000])
    names = [each["repository_name"] for each in listed["repository_symbols"]]
    if not names:
        end(ok=False, stage="definitions", problem="the code location has no definitions")
    for name in names:
        origin = {
            "__class__": "ExternalRepositoryOrigin",
            "repository_location_origin": {
                "__class__": "GrpcServerRepositoryLocationOrigin",
                "host": "localhost", "location_name": location, "port": port, "socket": None,
            },
            "repository_name": name,
        }
        stream = channel.unary_stream("/api.DagsterApi/StreamingExternalRepository")
        request = text(1, json.dumps(origin)) + varint(2 << 3) + b"\x01"
        # An error is small; only a small answer is worth reading as JSON.
        size, first = 0, b""
        for event in stream(request, timeout=left()):
            chunk = fields(event).get(2, b"")
            size += len(chunk)
            if size < 200000:
                first += chunk
        if size < 200000 and b"ErrorSnap" in first[:200] or b"ExternalRepositoryErrorData" in first[:200]:
            error = json.loads(first).get("error")
            # Another Dagster may write this address differently; that is no error of the user code.
            if isinstance(error, dict) and error.get("cls_name") != "DeserializationError":
                end(ok=False, stage="definitions", errors=problem(error), problem=str(error.get("message")))
    end(ok=True, repositories=names, image=listed.get("container_image"),
        versions=listed.get("dagster_library_versions") or {})
except grpc.RpcError as error:
    end(ok=False, stage="definitions", problem="%s: %s" % (error.code().name, error.details()))
"""
