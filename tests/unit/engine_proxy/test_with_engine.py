"""The proxy in front of a real engine: what the launcher does works, and nothing else does."""

from __future__ import annotations

import concurrent.futures
import json
import os
import re
import secrets
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import docker as docker_sdk
import pytest

from .conftest import SOURCE, Proxy, docker, engine_proxy


@pytest.fixture
def client(proxy: Proxy) -> Iterator[docker_sdk.DockerClient]:
    """docker-py, as the launcher makes it (the API version is negotiated)."""
    made = docker_sdk.DockerClient(proxy.url)
    yield made
    made.close()


@pytest.fixture
def stranger(base_image: str) -> Iterator[str]:
    """A container that is not ours, under a name that looks like an id."""
    name = secrets.token_hex(6)
    identifier = docker("run", "-d", "--name", name, "--network", "none", base_image, "sleep", "300")
    yield identifier
    docker("rm", "-f", "-v", identifier)


def test_the_run_launcher_launches_inspects_and_terminates(proxy: Proxy, monkeypatch: pytest.MonkeyPatch) -> None:
    from dagster._core.code_pointer import ModuleCodePointer
    from dagster._core.launcher import LaunchRunContext, WorkerStatus
    from dagster._core.origin import JobPythonOrigin, RepositoryPythonOrigin
    from dagster._core.remote_origin import (
        RegisteredCodeLocationOrigin,
        RemoteJobOrigin,
        RemoteRepositoryOrigin,
    )
    from dagster._core.test_utils import create_run_for_test, instance_for_test
    from dagster_docker import DockerRunLauncher

    monkeypatch.setenv("DOCKER_HOST", proxy.url)
    monkeypatch.setenv("POSTGRES_PASSWORD", "canary-4711")
    launcher = DockerRunLauncher(
        env_vars=["POSTGRES_PASSWORD"],
        network=proxy.network,
        container_kwargs={
            "volumes": [f"{proxy.volume}:/opt/dagster/storage"],
            "labels": {"dataops.dagster_gce": "run"},
            "mem_limit": "256m",
            "nano_cpus": 500_000_000,
            "pids_limit": 64,
            "cap_drop": ["ALL"],
            "security_opt": ["no-new-privileges:true"],
            "init": True,
            "stop_timeout": 7,
        },
    )

    with instance_for_test() as instance:
        launcher.register_instance(instance)
        pointer = ModuleCodePointer("a_module", "a_job")
        repository = RepositoryPythonOrigin("python", pointer, proxy.image, entry_point=["dagster"])
        remote = RemoteJobOrigin(RemoteRepositoryOrigin(RegisteredCodeLocationOrigin("x"), "r"), "a_job")
        run = create_run_for_test(
            instance, "a_job", remote_job_origin=remote, job_code_origin=JobPythonOrigin("a_job", repository)
        )
        launcher.launch_run(LaunchRunContext(dagster_run=run, workspace=None))
        run = instance.get_run_by_id(run.run_id)
        assert run is not None
        identifier = run.tags["docker/container_id"]
        assert launcher.check_run_worker_health(run).status == WorkerStatus.RUNNING
        found = json.loads(docker("inspect", identifier))[0]
        assert launcher.terminate(run.run_id)  # type: ignore[no-untyped-call] # Dagster has no types here
        assert launcher.check_run_worker_health(run).status == WorkerStatus.FAILED

    assert found["Config"]["User"] == "10001:10001"
    assert found["Config"]["Labels"]["dataops.dagster_gce"] == "run"
    assert found["Config"]["Labels"]["dagster/run_id"] == run.run_id
    assert "POSTGRES_PASSWORD=canary-4711" in found["Config"]["Env"]
    host = found["HostConfig"]
    assert (host["CapDrop"], host["SecurityOpt"], host["Privileged"]) == (["ALL"], ["no-new-privileges=true"], False)
    assert (host["Memory"], host["NanoCpus"], host["PidsLimit"]) == (256 << 20, 500_000_000, 64)
    assert list(found["NetworkSettings"]["Networks"]) == [proxy.network]
    assert [mount["Name"] for mount in found["Mounts"]] == [proxy.volume]
    log = proxy.log.read_text()
    assert re.search(rf"allow 201 POST /v1.45/containers/create .*container={identifier[:12]}", log)
    assert "canary-4711" not in log


def test_the_environment_is_not_shown(proxy: Proxy, client: docker_sdk.DockerClient) -> None:
    made = client.containers.create(proxy.image, "sleep 1", environment={"A": "canary"}, network=proxy.network)
    assert made.status == "created"
    assert "Env" not in made.attrs["Config"]


def test_an_image_that_is_missing_is_not_pulled(proxy: Proxy, client: docker_sdk.DockerClient) -> None:
    """The launcher creates, gets ImageNotFound, pulls: the error it ends with has to say what to do."""
    missing = f"{proxy.repository}:missing"
    with pytest.raises(docker_sdk.errors.ImageNotFound):
        client.containers.create(missing, network=proxy.network)
    with pytest.raises(docker_sdk.errors.APIError, match="deploy the release again"):
        client.images.pull(missing)


def test_an_image_by_its_id_needs_a_tag_of_ours(proxy: Proxy, client: docker_sdk.DockerClient, base_image: str) -> None:
    ours, other = (docker("image", "inspect", "-f", "{{.Id}}", name) for name in (proxy.image, base_image))
    assert client.containers.create(ours, "sleep 1", network=proxy.network).attrs["Image"] == ours
    with pytest.raises(docker_sdk.errors.APIError, match="has no tag of an allowed repository"):
        client.containers.create(other, "sleep 1", network=proxy.network)


def test_nobody_elses_container_can_be_touched(proxy: Proxy, client: docker_sdk.DockerClient, stranger: str) -> None:
    name = docker("inspect", "-f", "{{.Name}}", stranger).lstrip("/")
    for identifier in (stranger, stranger[:12], name):
        for method, verb in (("GET", "json"), ("POST", "stop"), ("POST", "start")):
            status, said = proxy.send(
                f"{method} /v1.45/containers/{identifier}/{verb} HTTP/1.1\r\nHost: x\r\n\r\n".encode()
            )
            assert (status, "not a run of ours" in said) == (403, True)
    assert docker("inspect", "-f", "{{.State.Running}}", stranger) == "true"


ATTACKS = [
    '{"Image": "IMAGE", "HostConfig": {"NetworkMode": "NET", "Priv\\u0069leged": true}}',
    '{"Image": "IMAGE", "HostConfig": {"NetworkMode": "NET", "privileged": true}}',
    '{"Image": "IMAGE", "HostConfig": {"NetworkMode": "NET", "PRIVILEGED": true}}',
    '{"Image": "IMAGE", "HostConfig": {"NetworkMode": "NET", "Privileged": false, "Privileged": true}}',
    '{"Image": "IMAGE", "HostConfig": {"NetworkMode": "NET"}, "hostconfig": {"Privileged": true}}',
    '{"Image": "IMAGE", "HostConfig": {"NetworkMode": "NET"}, "HostConfig": {"Privileged": true}}',
    '{"Image": "IMAGE", "HostConfig": {"NetworkMode": "NET"}, "Host\\u0043onfig": {"Privileged": true}}',
    '{"Image": "IMAGE", "HostConfig": {"NetworkMode": "NET", "Binds": ["/:/host:rw"]}}',
    '{"Image": "IMAGE", "HostConfig": {"NetworkMode": "NET", "Bind\\u0073": ["/:/host:rw"]}}',
    '{"Image": "IMAGE", "HostConfig": {"NetworkMode": "host"}}',
    '{"Image": "BASE", "HostConfig": {"NetworkMode": "NET"}}',
    '{"Image": "IMAGE", "image": "BASE", "HostConfig": {"NetworkMode": "NET"}}',
    '{"Image": "IMAGE", "User": "root", "HostConfig": {"NetworkMode": "NET"}}',
    '{"Image": "IMAGE", "HostConfig": {"NetworkMode": "NET"}} {"HostConfig": {"Privileged": true}}',
]


@pytest.mark.parametrize("body", ATTACKS)
def test_an_attack_makes_no_container(proxy: Proxy, base_image: str, body: str) -> None:
    before = proxy.containers()
    sent = body.replace("IMAGE", proxy.image).replace("NET", proxy.network).replace("BASE", base_image)
    status, said = proxy.post("/v1.45/containers/create", sent)
    assert status in (400, 403), said
    assert json.loads(said)["message"].startswith("engine proxy: ")
    assert proxy.containers() == before


def raw(head: str, body: str = "") -> bytes:
    return head.replace("\n", "\r\n").encode() + b"\r\n\r\n" + body.encode()


@pytest.mark.parametrize(
    ("data", "statuses"),
    [
        (raw("POST /v1.45/containers/create HTTP/1.1\nHost: x\nTransfer-Encoding: chunked", "0\r\n\r\n"), {411}),
        (
            raw("POST /v1.45/containers/create HTTP/1.1\nTransfer-Encoding: chunked\nContent-Length: 5", "0\r\n\r\n"),
            {411},
        ),
        (raw("POST /v1.45/containers/create HTTP/1.1\nContent-Length: 2\nContent-Length: 3", "{}}"), {400}),
        (raw("POST /v1.45/containers/create HTTP/1.1\nContent-Length: +2", "{}"), {400}),
        (raw("POST /v1.45/containers/create HTTP/1.1\nContent-Length: 0x2", "{}"), {400}),
        (raw("POST /v1.45/containers/create HTTP/1.1\nContent-Length: 99999999"), {413}),
        (raw("POST /v1.45/containers/create HTTP/1.1\nContent-Length : 2", "{}"), {400}),
        (raw("POST /v1.45/containers/create HTTP/1.1\nContent-Type: text/plain\nContent-Length: 2", "{}"), {415}),
        (raw("POST /v1.45/containers/create HTTP/1.1\nExpect: 100-continue\nContent-Length: 2", "{}"), {417}),
        (raw("GET /_ping HTTP/1.1\nConnection: Upgrade\nUpgrade: tcp"), {403}),
        (raw("GET /_ping HTTP/1.1\nContent-Length: 2", "{}"), {400}),
        (raw("GET /_ping HTTP/1.1\nbroken header"), {400}),
        (raw("GET http://docker/v1.45/info HTTP/1.1\nHost: x"), {403}),
        (raw("GET /_ping HTTP/1.0"), {400}),
        (raw("GET /_ping"), {400}),
        (raw("GET /v1.45/%2e%2e/info HTTP/1.1"), {403}),
        (raw("GET /_ping HTTP/2.0"), {400, 505}),
        (raw("DELETE /v1.45/containers/x HTTP/1.1"), {403}),
        (raw("PUT /v1.45/containers/x HTTP/1.1"), {501}),
        (raw("CONNECT docker:80 HTTP/1.1"), {501}),
        (raw("GET /" + "a" * 70000 + " HTTP/1.1"), {414}),
        (raw("GET /_ping HTTP/1.1" + "\nA: b" * 200), {431}),
    ],
    ids=lambda value: value[:70].decode() if isinstance(value, bytes) else "",
)
def test_a_malformed_request_is_refused(proxy: Proxy, data: bytes, statuses: set[int]) -> None:
    status, said = proxy.send(data)
    assert status in statuses, said
    assert "message" in json.loads(said)


def test_nothing_hides_behind_a_request(proxy: Proxy) -> None:
    """The connection ends after one answer, so a second request in the same bytes is never read."""
    ping = b"GET /_ping HTTP/1.1\r\nHost: x\r\n\r\n"
    with socket.create_connection(("127.0.0.1", proxy.port), timeout=10) as connection:
        connection.sendall(ping + ping)
        answer = b""
        while piece := connection.recv(65536):
            answer += piece
    assert answer.count(b"HTTP/1.1") == 1


def test_a_client_cannot_write_into_the_log(proxy: Proxy) -> None:
    proxy.post("/v1.45/containers/create", proxy.body(Labels={"com.docker.x\nallow 200 forged": "y"}))
    assert not re.search(r"^allow 200 forged", proxy.log.read_text(), re.MULTILINE)


def test_a_refusal_reaches_a_client_that_sent_much(proxy: Proxy) -> None:
    """Ten times, since a connection that is reset does not always lose the answer."""
    for _ in range(10):
        status, said = proxy.post("/v1.45/containers/x/exec", {"Cmd": ["x" * 900_000]})
        assert (status, "is not allowed" in said) == (403, True)


def test_a_name_is_not_for_a_run_to_choose(proxy: Proxy) -> None:
    status, said = proxy.post("/v1.45/containers/create?name=dagster-postgres", proxy.body())
    assert (status, "'name' is not allowed" in said) == (403, True)


def test_a_container_cannot_be_attached_to(proxy: Proxy, client: docker_sdk.DockerClient) -> None:
    made = client.containers.create(proxy.image, "dagster", network=proxy.network)
    made.start()
    for call in (lambda: made.exec_run("id"), made.attach, made.logs, made.kill, made.remove, made.top):
        with pytest.raises(docker_sdk.errors.APIError, match=r"403|501"):
            call()
    made.stop(timeout=5)


def test_many_at_once(proxy: Proxy) -> None:
    """Two times as many clients as there are threads: they wait, none is lost."""

    def launch(_: int) -> int:
        return proxy.post("/v1.45/containers/create", proxy.body())[0]

    with concurrent.futures.ThreadPoolExecutor(64) as pool:
        assert list(pool.map(launch, range(64))) == [201] * 64


def test_silent_clients_do_not_block_others(proxy: Proxy) -> None:
    silent = [socket.create_connection(("127.0.0.1", proxy.port)) for _ in range(20)]
    started = time.monotonic()
    assert proxy.send(raw("GET /_ping HTTP/1.1"))[0] == 200
    assert time.monotonic() - started < 2
    for connection in silent:
        connection.close()


def test_memory_at_rest(proxy: Proxy) -> None:
    for _ in range(50):
        proxy.send(raw("GET /version HTTP/1.1"))
    status = Path(f"/proc/{proxy.process.pid}/status").read_text()
    resident = int(re.search(r"VmRSS:\s+(\d+) kB", status)[1]) / 1024  # type: ignore[index]
    assert resident <= 27, f"{resident:.1f} MB"


@pytest.mark.parametrize(
    "request_line", ["GET /v1.45/info", "GET /services", "GET /nodes", "DELETE /v1.45/services/" + "a" * 25]
)
def test_nothing_of_swarm_without_its_network(proxy: Proxy, request_line: str) -> None:
    status, said = proxy.send(raw(f"{request_line} HTTP/1.1"))
    assert status == 403
    assert "no network of a swarm is configured" in said
    assert proxy.post("/v1.45/services/create", {})[0] == 403


def test_the_health_check(proxy: Proxy) -> None:
    def check(port: int) -> subprocess.CompletedProcess[str]:
        config = {"network": "n", "user": "1:1", "images": [], "binds": [], "listen": f"127.0.0.1:{port}"}
        return subprocess.run(
            [sys.executable, "-I", str(SOURCE), "--check"],
            env={**os.environ, "ENGINE_PROXY_CONFIG": json.dumps(config)},
            capture_output=True,
            text=True,
            check=False,
        )

    good, bad = check(proxy.port), check(1)
    assert (good.returncode, good.stdout.strip()) == (0, "OK")
    assert (bad.returncode, "does not answer" in bad.stdout) == (1, True)


# --- An engine that hangs or leaves: sockets of our own, since the machine's engine must not be restarted ---


@pytest.fixture
def hanging(tmp_path: Path) -> Iterator[Path]:
    """A socket that takes connections and never answers."""
    path = tmp_path / "docker.sock"
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as server:
        server.bind(str(path))
        server.listen(50)
        yield path


def test_a_slow_engine_is_a_clear_answer(hanging: Path) -> None:
    with pytest.raises(engine_proxy.Refusal, match=r"did not answer within 0.2 s") as refusal:
        engine_proxy.Engine(str(hanging)).call("GET", "/_ping", seconds=0.2)
    assert refusal.value.status == 504


def test_an_absent_engine_is_a_clear_answer(tmp_path: Path) -> None:
    with pytest.raises(engine_proxy.Refusal, match="does not answer") as refusal:
        engine_proxy.Engine(str(tmp_path / "none")).call("GET", "/_ping")
    assert refusal.value.status == 503


@pytest.mark.parametrize(
    ("status", "body", "words"),
    [
        (404, '{"message": "No such container: 0d2b"}', "No such container: 0d2b"),
        (503, '{"message": "This node is not a swarm manager."}', "This node is not a swarm manager."),
        (500, "out of order", "out of order"),
        (500, '["message"]', '["message"]'),
        (502, "", ""),
    ],
)
def test_the_engine_refuses_in_its_own_words(tmp_path: Path, status: int, body: str, words: str) -> None:
    path = tmp_path / "docker.sock"
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as server:
        server.bind(str(path))
        server.listen(1)

        def answer() -> None:
            with server.accept()[0] as connection:
                connection.recv(65536)
                head = f"HTTP/1.1 {status} x\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
                connection.sendall((head + body).encode())

        thread = threading.Thread(target=answer)
        thread.start()
        with pytest.raises(engine_proxy.Refusal) as refusal:
            engine_proxy.Engine(str(path)).own_container("/v1.45", "0d2b")
        thread.join()
    assert (refusal.value.status, str(refusal.value)) == (status, f"the Docker engine says: {words}")


def read_to_the_end(reader: Any) -> None:
    while reader.readinto(bytearray(1)):
        pass


def test_a_trickling_client_is_cut_off() -> None:
    ours, theirs = socket.socketpair()
    reader = engine_proxy._DeadlineReader(ours, 0.3)

    def trickle() -> None:
        for _ in range(50):
            try:
                theirs.send(b"x")
            except OSError:
                return
            time.sleep(0.05)

    thread = threading.Thread(target=trickle)
    thread.start()
    with pytest.raises(TimeoutError):
        read_to_the_end(reader)
    ours.close()
    thread.join()


def test_the_proxy_leaves_when_its_socket_is_stale(hanging: Path) -> None:
    """An engine that restarts makes a new socket; the mounted one refuses for ever, so the container starts again."""
    config: dict[str, Any] = {"network": "n", "user": "1:1", "images": [], "binds": [], "socket": str(hanging)}
    program = (
        "import sys; sys.path.insert(0, sys.argv.pop()); import engine_proxy as p\n"
        "p.WATCH_SECONDS = 0.1\n"
        "sys.exit(p.main([]))"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program, str(SOURCE.parent)],
        env={**os.environ, "ENGINE_PROXY_CONFIG": json.dumps({**config, "listen": "127.0.0.1:0"})},
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert "listening" in process.stdout.readline()
        time.sleep(0.5)
        assert process.poll() is None
        hanging.unlink()
        assert process.wait(10) == 1
        assert "leaving, to be started with the engine's new one" in process.stdout.read()
