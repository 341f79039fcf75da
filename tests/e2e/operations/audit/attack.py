"""Runs in the daemon's container: what somebody would send to the engine proxy to become root on the machine.

Reads JSON from standard input: {"image": an image that runs may use, "containers": ids of containers that are no runs}.
Prints {name of the attack: the answer's status, or "closed"}.
"""

from __future__ import annotations

import json
import socket
import sys

given = json.load(sys.stdin)
IMAGE = given["image"]
OTHER = given["containers"][0]
V = "/v1.45"
JSON = "Content-Type: application/json\r\n"


def send(request: bytes, patience: float = 8.0) -> str:
    """The status of a raw request; "closed" where the connection ends or nothing comes."""
    with socket.create_connection(("dagster-engine-proxy", 2375), 10) as connection:
        connection.settimeout(patience)
        try:
            connection.sendall(request)
            answer = connection.recv(65536)
        except OSError:
            return "closed"
    return answer.split()[1].decode() if answer.startswith(b"HTTP/") else "closed"


def plain(method: str, path: str, body: str = "", more: str = "") -> bytes:
    """A well-formed request."""
    content = body.encode()
    head = f"{method} {path} HTTP/1.1\r\nHost: x\r\n{JSON}{more}Content-Length: {len(content)}\r\n\r\n"
    return head.encode() + content


def create(**settings: object) -> bytes:
    """A create request with settings beyond those of a run."""
    return plain("POST", f"{V}/containers/create", json.dumps({"Image": IMAGE, **settings}))


def typed(headers: str, body: str = "{}") -> bytes:
    """A create request with headers as they are given."""
    return f"POST {V}/containers/create HTTP/1.1\r\nHost: x\r\n{JSON}{headers}\r\n{body}".encode()


def raw(inside: str) -> bytes:
    """A create request whose body is this text after the image."""
    return plain("POST", f"{V}/containers/create", f'{{"Image": "{IMAGE}", {inside}}}')


BIND = {"HostConfig": {"Binds": ["/:/host"]}}
MOUNT = {"Type": "bind", "Source": "/", "Target": "/host"}
DRIVER = {"Type": "volume", "Source": "x", "Target": "/host", "VolumeOptions": {"DriverConfig": {"Name": "local"}}}
ATTACKS = {
    # Rights that a run has not.
    "privileged": create(HostConfig={"Privileged": True}),
    "privileged, escaped key": raw('"HostConfig": {"Priv\\u0069leged": true}'),
    "privileged, other case": raw('"HostConfig": {"privileged": true}'),
    "privileged, other case above": raw('"hostconfig": {"Privileged": true}'),
    "privileged, key twice": raw('"HostConfig": {"Privileged": false, "Privileged": true}'),
    "privileged, settings twice": raw('"HostConfig": {}, "HostConfig": {"Privileged": true}'),
    "privileged, a second document": plain(
        "POST", f"{V}/containers/create", f'{{"Image": "{IMAGE}"}} {{"HostConfig": {{"Privileged": true}}}}'
    ),
    "capabilities": create(HostConfig={"CapAdd": ["SYS_ADMIN"]}),
    "capability, escaped key": raw('"HostConfig": {"Cap\\u0041dd": ["ALL"]}'),
    "root": create(User="0"),
    "root by name": create(User="root"),
    "root's group": create(User="10001:0"),
    "more groups": create(HostConfig={"GroupAdd": ["0"]}),
    "no seccomp": create(HostConfig={"SecurityOpt": ["seccomp=unconfined"]}),
    "no AppArmor": create(HostConfig={"SecurityOpt": ["apparmor=unconfined"]}),
    "paths unmasked": create(HostConfig={"MaskedPaths": [], "ReadonlyPaths": ["/x"]}),
    "kernel settings": create(HostConfig={"Sysctls": {"kernel.core_pattern": "|/tmp/x"}}),
    "devices": create(HostConfig={"Devices": [{"PathOnHost": "/dev/sda", "PathInContainer": "/dev/sda"}]}),
    "device rules": create(HostConfig={"DeviceCgroupRules": ["b *:* rwm"]}),
    "device requests": create(HostConfig={"DeviceRequests": [{"Count": -1}]}),
    "another runtime": create(HostConfig={"Runtime": "nvidia"}),
    "a cgroup of its own": create(HostConfig={"CgroupParent": "/"}),
    "limits of processes": create(HostConfig={"Ulimits": [{"Name": "core", "Soft": -1, "Hard": -1}]}),
    # The machine's folders and namespaces.
    "the machine's root": create(**BIND),
    "the machine's root, as a mount": create(HostConfig={"Mounts": [MOUNT]}),
    "the machine's root, by a volume driver": create(HostConfig={"Mounts": [DRIVER]}),
    "the engine's socket": create(HostConfig={"Binds": ["/var/run/docker.sock:/s"]}),
    "the password's folder, writable": create(
        HostConfig={"Binds": ["/opt/dagster/dagster_home/database:/opt/dagster/dagster_home/database:rw"]}
    ),
    "a folder beside an allowed one": create(
        HostConfig={"Binds": ["/opt/dagster/dagster_home/database/..:/opt/dagster/dagster_home/database:ro"]}
    ),
    "the database's volume": create(HostConfig={"Binds": ["dagster-postgres:/data"]}),
    "an anonymous volume": create(Volumes={"/opt/dagster/dagster_home": {}}),
    "another's mounts": create(HostConfig={"VolumesFrom": [OTHER]}),
    "the machine's network": create(HostConfig={"NetworkMode": "host"}),
    "the proxy's network": create(HostConfig={"NetworkMode": "dagster-engine"}),
    "two networks": create(NetworkingConfig={"EndpointsConfig": {"dagster-network": {}, "dagster-engine": {}}}),
    "another's address": create(
        NetworkingConfig={"EndpointsConfig": {"dagster-network": {"Aliases": ["dagster-postgres"]}}}
    ),
    "another's network address": create(MacAddress="02:da:65:00:00:01"),
    "the network of a container": create(HostConfig={"NetworkMode": f"container:{OTHER}"}),
    "the machine's processes": create(HostConfig={"PidMode": "host"}),
    "the processes of a container": create(HostConfig={"PidMode": f"container:{OTHER}"}),
    "the machine's memory": create(HostConfig={"IpcMode": "host"}),
    "the machine's users": create(HostConfig={"UsernsMode": "host"}),
    "the machine's name": create(HostConfig={"UTSMode": "host"}),
    "a port": create(HostConfig={"PortBindings": {"4000/tcp": [{"HostPort": "4000"}]}}),
    "every port": create(HostConfig={"PublishAllPorts": True}),
    "to live for ever": create(HostConfig={"RestartPolicy": {"Name": "always"}}),
    "a log driver that connects": create(HostConfig={"LogConfig": {"Type": "syslog"}}),
    "a label of the stack's": create(Labels={"dataops.dagster_gce": "stack"}),
    "a label of Compose's": create(Labels={"com.docker.compose.project": "dagster"}),
    "a name": plain("POST", f"{V}/containers/create?name=dagster-postgres2", json.dumps({"Image": IMAGE})),
    # Images.
    "another image": plain("POST", f"{V}/containers/create", '{"Image": "postgres:17"}'),
    "another image, key twice": raw('"Image": "postgres:17"'),
    "another image, other case": raw('"image": "postgres:17"'),
    "a pull": plain("POST", f"{V}/images/create?fromImage=debian&tag=latest"),
    "a pull from elsewhere": plain("POST", f"{V}/images/create?fromSrc=http://127.0.0.1/x"),
    "a build": plain("POST", f"{V}/build?remote=http://127.0.0.1/x"),
    "a load": plain("POST", f"{V}/images/load"),
    "a commit": plain("POST", f"{V}/commit?container={OTHER}"),
    # Containers that are no runs.
    "to stop another": plain("POST", f"{V}/containers/{OTHER}/stop"),
    "to stop another, by name": plain("POST", f"{V}/containers/dagster-postgres/stop"),
    "to kill": plain("POST", f"{V}/containers/{OTHER}/kill"),
    "to remove": plain("DELETE", f"{V}/containers/{OTHER}?force=1"),
    "to look at another": plain("GET", f"{V}/containers/{OTHER}/json"),
    "to list": plain("GET", f"{V}/containers/json?all=1"),
    "to run inside": plain("POST", f"{V}/containers/{OTHER}/exec", '{"Cmd": ["id"]}'),
    "to begin what runs inside": plain("POST", f"{V}/exec/{OTHER}/start", "{}"),
    "to attach": plain(
        "POST", f"{V}/containers/{OTHER}/attach?stream=1", more="Connection: Upgrade\r\nUpgrade: tcp\r\n"
    ),
    "to attach by websocket": plain("GET", f"{V}/containers/{OTHER}/attach/ws", more="Upgrade: websocket\r\n"),
    "to update": plain("POST", f"{V}/containers/{OTHER}/update", '{"RestartPolicy": {"Name": "no"}}'),
    "to read files": plain("GET", f"{V}/containers/{OTHER}/archive?path=/"),
    "to write files": plain("PUT", f"{V}/containers/{OTHER}/archive?path=/"),
    "to export": plain("GET", f"{V}/containers/{OTHER}/export"),
    "to read logs": plain("GET", f"{V}/containers/{OTHER}/logs?stdout=1"),
    # The engine itself.
    "info": plain("GET", f"{V}/info"),
    "events": plain("GET", f"{V}/events"),
    "a volume": plain("POST", f"{V}/volumes/create", '{"DriverOpts": {"type": "none", "o": "bind", "device": "/"}}'),
    "a network": plain("POST", f"{V}/networks/create", '{"Name": "x"}'),
    "to join a network": plain("POST", f"{V}/networks/dagster-engine/connect", json.dumps({"Container": OTHER})),
    "a plugin": plain("POST", f"{V}/plugins/pull?remote=x"),
    "a swarm": plain("POST", f"{V}/swarm/init", "{}"),
    "to prune": plain("POST", f"{V}/containers/prune"),
    "a session": plain("POST", f"{V}/session", more="Connection: Upgrade\r\nUpgrade: h2c\r\n"),
    # Tricks of HTTP.
    "an escaped path": plain("GET", f"{V}/containers%2fjson"),
    "dots in the path": plain("GET", f"{V}/containers/{OTHER}/../json"),
    "escaped dots": plain("GET", f"{V}/containers/%2e%2e/info"),
    "two slashes": plain("GET", f"{V}//info"),
    "a path with a host": plain("GET", "http://docker/info"),
    "a fragment": plain("GET", "/_ping#/../info"),
    "a semicolon": plain("GET", "/_ping;/info"),
    "an odd version": plain("GET", "/v1.45/../v1.45/info"),
    "another method by header": plain("POST", "/_ping", more="X-HTTP-Method-Override: DELETE\r\n"),
    "lower case": plain("post", f"{V}/containers/create", "{}"),
    "chunks": (
        f"POST {V}/containers/create HTTP/1.1\r\nHost: x\r\n{JSON}Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n".encode()
    ),
    "chunks and a length": (
        f"POST {V}/containers/create HTTP/1.1\r\nHost: x\r\n{JSON}Transfer-Encoding: chunked\r\n"
        "Content-Length: 4\r\n\r\n0\r\n\r\n".encode()
    ),
    "two lengths": (typed("Content-Length: 2\r\nContent-Length: 40\r\n")),
    "a length with a sign": typed("Content-Length: +2\r\n"),
    "a second request behind the first": (
        plain("POST", f"{V}/containers/create", "{}") + plain("GET", f"{V}/containers/json")
    ),
    "a body too large": plain(
        "POST", f"{V}/containers/create", json.dumps({"Image": IMAGE, "Env": ["A=" + "x" * (2 << 20)]})
    ),
    "a body too deep": plain("POST", f"{V}/containers/create", "[" * 100000),
    "another encoding": plain("POST", f"{V}/containers/create", "{}", more="Content-Encoding: gzip\r\n"),
    "a body in UTF-16": (
        f"POST {V}/containers/create HTTP/1.1\r\nHost: x\r\n{JSON}Content-Length: 4\r\n\r\n".encode()
        + "{}".encode("utf-16-le")
    ),
    "a form": (
        f"POST {V}/containers/create HTTP/1.1\r\nHost: x\r\nContent-Type: application/x-www-form-urlencoded\r\n"
        "Content-Length: 2\r\n\r\n{}".encode()
    ),
    "lines that continue": typed("X: a\r\n Content-Length: 0\r\nContent-Length: 2\r\n"),
    "HTTP 0.9": b"GET /info\r\n",
    "no HTTP at all": b"\x16\x03\x01\x00\x05hello\r\n\r\n",
}

print(
    json.dumps(
        {"control": send(plain("GET", "/_ping")), "attacks": {name: send(each) for name, each in ATTACKS.items()}}
    )
)
