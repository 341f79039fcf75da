"""The images with each other: runs succeed, and the health checks tell the truth in both directions."""

from __future__ import annotations

import pytest

from tests.images.support import Stack, docker, wait_for

DAEMON_CHECK = ("python", "/usr/local/lib/dagster-gce/healthcheck_daemon.py")
WEBSERVER_CHECK = ("python", "/usr/local/lib/dagster-gce/healthcheck_webserver.py")


def test_the_location_is_loaded(stack: Stack) -> None:
    wait_for("the location", lambda: all(location.loaded for location in stack.locations().values()))
    assert list(stack.locations()) == ["dagster_core"]


@pytest.mark.parametrize(
    ("job", "tags"),
    [("platform_check", {}), ("climate_month", {"dagster/partition": "2013-05"}), ("publish_normals", {})],
)
def test_a_run_succeeds(stack: Stack, job: str, tags: dict[str, str]) -> None:
    run = stack.launch(job, tags=tags)
    assert stack.finish(run) == "SUCCESS", stack.logs("core")[-3000:]


def test_files_are_shared_and_owned_by_dagster(stack: Stack) -> None:
    run = stack.launch("climate_month", tags={"dagster/partition": "2014-02"})
    assert stack.finish(run) == "SUCCESS"
    status, listing = stack.execute(
        "webserver", "stat", "-c", "%u:%g", "/opt/dagster/storage/monthly_summaries/2014-02.json"
    )
    assert (status, listing.strip()) == (0, "10001:10001")


def test_nothing_but_tmp_and_storage_is_written(stack: Stack) -> None:
    for part in ("core", "webserver", "daemon"):
        assert docker("diff", stack.names[part]).strip() == "", part
        assert "Read-only file system" not in stack.logs(part)


def test_the_checks_are_green(stack: Stack) -> None:
    assert stack.execute("daemon", *DAEMON_CHECK) == (0, "healthy: every required daemon has a young heartbeat\n")
    status, output = stack.execute("webserver", *WEBSERVER_CHECK)
    assert (status, output.split()[0]) == (0, "healthy:")


def test_the_webservers_check_is_red_where_none_listens(stack: Stack) -> None:
    status, output = stack.execute("daemon", *WEBSERVER_CHECK)
    assert status == 1
    assert "Connection refused" in output


def test_the_daemons_check_is_red_without_postgresql_and_green_again(stack: Stack) -> None:
    docker("stop", stack.names["postgres"])
    try:
        status, output = stack.execute("daemon", *DAEMON_CHECK)
        assert status == 1
        assert output.startswith("unhealthy: PostgreSQL: ")
    finally:
        docker("start", stack.names["postgres"])
    wait_for("the daemon's check", lambda: stack.execute("daemon", *DAEMON_CHECK)[0] == 0, 90)


def test_the_daemons_check_is_red_when_the_daemon_hangs(stack: Stack) -> None:
    """Stopped, not killed: the process is there, as with a deadlock, and nothing else notices."""
    assert stack.execute("daemon", *DAEMON_CHECK, "--max-age", "60")[0] == 0
    docker("kill", "--signal", "STOP", stack.names["daemon"])
    try:
        check = (*DAEMON_CHECK, "--max-age", "40")
        output = wait_for("a red check", lambda: (r := stack.execute("daemon", *check))[0] == 1 and r[1], 90)
        assert "expected a heartbeat within 40 s, found one of" in output
    finally:
        docker("kill", "--signal", "CONT", stack.names["daemon"])
    wait_for("a green check", lambda: stack.execute("daemon", *DAEMON_CHECK, "--max-age", "40")[0] == 0, 90)
