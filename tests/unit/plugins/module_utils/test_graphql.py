"""The webserver's answers, as a real one gave them (Dagster 1.13.27), over real HTTP."""

from __future__ import annotations

import http.server
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.dataops.dagster_gce.plugins.module_utils import graphql

RECORDED: dict[str, Any] = json.loads((Path(__file__).parent / "recorded" / "webserver.json").read_text())


class Replay(http.server.ThreadingHTTPServer):
    """Answers each POST with what was put into it."""

    status = 200
    body = b"{}"

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def answer(self, name: str) -> None:
        self.status, self.body = 200, json.dumps({"data": RECORDED[name]}).encode()


class Handler(http.server.BaseHTTPRequestHandler):
    """See Replay."""

    def do_POST(self) -> None:
        server = self.server
        assert isinstance(server, Replay)
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(server.status)
        self.end_headers()
        self.wfile.write(server.body)

    def log_message(self, *_: object) -> None:
        return


@pytest.fixture
def replay() -> Iterator[Replay]:
    with Replay(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def test_a_loaded_location(replay: Replay) -> None:
    replay.answer("loaded")
    found = graphql.Webserver(replay.url).reload_workspace()["dagster_core"]
    assert found.loaded
    assert found.error == ""
    assert found.host.startswith("docker_dagster_core_")
    assert found.image.startswith("sha256:")
    assert found.repositories == ("__repository__",)


def test_a_location_that_does_not_answer_is_not_loaded_although_dagster_says_loaded(replay: Replay) -> None:
    replay.answer("unreachable")
    found = graphql.Webserver(replay.url).reload_workspace()["dagster_core"]
    assert found.load_status == "LOADED"
    assert not found.loaded
    assert "UNAVAILABLE" in found.error


def test_a_refused_workspace_is_an_error_with_dagster_s_words(replay: Replay) -> None:
    replay.answer("refused")
    with pytest.raises(graphql.GraphQLError, match="root:load_from must be list"):
        graphql.Webserver(replay.url).reload_workspace()


def test_daemons_are_healthy_while_their_heartbeats_are_new(replay: Replay, monkeypatch: pytest.MonkeyPatch) -> None:
    replay.answer("daemons")
    webserver = graphql.Webserver(replay.url)
    last = max(each.last_heartbeat for each in webserver.daemons())
    needed = {"SENSOR", "SCHEDULER", "QUEUED_RUN_COORDINATOR"}
    monkeypatch.setattr("time.time", lambda: last + 1)
    assert needed <= {each.kind for each in webserver.daemons() if each.healthy}
    # Dagster itself says `healthy` for another half an hour.
    monkeypatch.setattr("time.time", lambda: last + graphql.HEARTBEAT_SECONDS)
    assert [each.kind for each in webserver.daemons() if each.healthy] == []


def test_an_answer_that_may_not_be_whole_is_no_answer(replay: Replay) -> None:
    one = RECORDED["runs"]["runsOrError"]["results"][0]
    webserver = graphql.Webserver(replay.url)
    for count in (graphql.RUNS_LIMIT - 1, graphql.RUNS_LIMIT):
        replay.body = json.dumps({"data": {"runsOrError": {"__typename": "Runs", "results": [one] * count}}}).encode()
        if count < graphql.RUNS_LIMIT:
            assert len(webserver.all_runs(graphql.WAITING)) == count
        else:
            with pytest.raises(graphql.GraphQLError, match="500 or more runs are QUEUED"):
                webserver.all_runs(graphql.WAITING)


def test_runs(replay: Replay) -> None:
    replay.answer("runs")
    run = graphql.Webserver(replay.url).runs(graphql.FINISHED)[0]
    assert run.status == "SUCCESS"
    # The release with which the run was made, and the image it needs.
    assert run.host.startswith("docker_dagster_core_")
    assert run.image.startswith("sha256:")
    assert len(run.container_id) == 64


def test_no_webserver_is_named_by_its_address() -> None:
    with pytest.raises(graphql.WebserverUnreachableError, match=r"http://127\.0\.0\.1:9 does not answer: .*refused"):
        graphql.Webserver("http://127.0.0.1:9").version()


def test_something_else_behind_the_address(replay: Replay) -> None:
    replay.status, replay.body = 502, b"<html>Bad gateway</html>"
    with pytest.raises(graphql.WebserverUnreachableError, match="HTTP 502: <html>Bad gateway"):
        graphql.Webserver(replay.url).version()
    replay.status, replay.body = 400, b'{"errors": [{"message": "Cannot query field"}]}'
    with pytest.raises(graphql.GraphQLError, match="Cannot query field"):
        graphql.Webserver(replay.url).version()
    replay.status, replay.body = 200, b"[1]"
    with pytest.raises(graphql.WebserverUnreachableError, match="no GraphQL server"):
        graphql.Webserver(replay.url).version()
