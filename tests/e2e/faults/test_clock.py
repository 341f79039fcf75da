"""The clock that people read is set by an hour, forward and back, with runs in flight.

libfaketime stands before everything on the machine that reads it: PostgreSQL, webserver, daemon, code server, runs and
the collection's jobs. Their CLOCK_MONOTONIC stays, as where somebody sets the clock of a real machine; the engine's and
the kernel's own stay too, since the kernel is this computer's.
"""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from tests.e2e import rows
from tests.e2e.faults import health
from tests.e2e.faults.conftest import VARIABLES, user_code
from tests.e2e.faults.database import sql
from tests.e2e.faults.load import FaultLoad
from tests.e2e.harness import Machine, long_form, new_or_given, wait

pytestmark = long_form

HOUR = 3600
# A file that every container of Dagster sees, one that PostgreSQL's does, and one for the machine itself.
SHARED, DATABASE, OWN = "/opt/dagster/storage/e2e-clock", "/opt/dagster/database/e2e-clock", "/root/clock/now"
LIBRARY, OWN_LIBRARY = "/usr/local/lib/libfaketime.so.1", "/root/clock/libfaketime.so.1"
# The images that ask it, by the variable of each: its name, whose image it is made of, its file.
IMAGES = {
    "dagster_image": ("e2e_clock_stack:1", "dagster-daemon", SHARED),
    "dagster_stack_postgres_image": ("e2e_clock_postgres:17", "dagster-postgres", DATABASE),
    "dagster_core_image": (
        "docker_dagster_core:e2e-clock", "docker_dagster_core_$(basename $(readlink /opt/dagster/releases/current))",
        SHARED,
    ),
}  # fmt: skip
_INSTALL = """set -e
apt-get update -qq && apt-get install -y -qq --no-install-recommends libfaketime >/dev/null
mkdir -p /root/clock && cd /root/clock && cp $(dpkg -L libfaketime | grep '/libfaketime[.]so[.]1$') .
"""
_BUILD = """docker tag $(docker inspect -f '{{{{.Image}}}}' {container}) {image}-before
docker build -q -t {image} -f - . <<E
FROM {image}-before
COPY --chmod=0644 libfaketime.so.1 {library}
ENV {settings}
E
"""
_SET = """set -e
cd $(docker volume inspect -f '{{{{.Mountpoint}}}}' dagster-storage)
for file in e2e-clock /opt/dagster/dagster_home/database/e2e-clock {own}; do
  echo {ahead:+d} >$file
  chmod 644 $file
done
"""


def _settings(library: str, file: str) -> str:
    return (
        f"LD_PRELOAD={library} FAKETIME_TIMESTAMP_FILE={file} FAKETIME_CACHE_DURATION=1 FAKETIME_DONT_FAKE_MONOTONIC=1"
    )


class Clock:
    """The machine's, which can be set."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self.ahead = 0

    def install(self) -> None:
        """Images that ask it, and jobs of systemd that do."""
        builds = [
            _BUILD.format(image=image, container=container, library=LIBRARY, settings=_settings(LIBRARY, file))
            for image, container, file in IMAGES.values()
        ]
        self.machine.ssh(_INSTALL + "".join(builds), timeout=600)
        images = {variable: image for variable, (image, _, _) in IMAGES.items()}
        self.machine.play("site.yml", **(VARIABLES | images), dagster_image_pull_policy="missing").ok()
        self.machine.ssh(f"systemctl set-environment {_settings(OWN_LIBRARY, OWN)}")
        self.set(0)

    def set(self, ahead: int) -> None:
        """So many seconds ahead of this computer's, for all at the same moment."""
        self.ahead = ahead
        self.machine.ssh(_SET.format(ahead=ahead, own=OWN))

    def of(self, container: str) -> float:
        """What a container takes for the time."""
        return float(self.machine.ssh(f"docker exec {container} date +%s"))

    def status(self) -> str:
        """``dagster-gce status``, as somebody on the machine reads it."""
        return self.machine.ssh(f"{_settings(OWN_LIBRARY, OWN)} dagster-gce status", check=False)


@pytest.fixture(scope="module")
def clock() -> Iterator[Clock]:
    """A machine of its own: there are ticks of another time in its database afterwards."""
    with new_or_given("e2e-clock") as machine:
        user_code()
        machine.play("site.yml", **VARIABLES).ok()
        machine.switch_ticks(True)
        found = Clock(machine)
        found.install()
        yield found


@pytest.mark.parametrize("step", [HOUR, -HOUR], ids=["forward", "back"])
def test_the_clock_is_set(clock: Clock, step: int) -> None:
    machine = clock.machine
    wait(lambda: not health.problems(machine, clock=clock.ahead), 120, "a healthy machine")
    with FaultLoad(machine, long_seconds=150) as load:
        fault, last = time.time(), int(sql(machine, "select max(id) from job_ticks")[0])
        clock.set(clock.ahead + step)
        for container in ("dagster-postgres", "dagster-daemon", "dagster-webserver"):
            assert abs(clock.of(container) - clock.ahead - time.time()) < 60
        seconds = health.seconds_until_healthy(machine, fault, limit=120, heartbeats=True, clock=clock.ahead)
        direction = "forward" if step > 0 else "back"
        wait(lambda: f"the clock was set {direction}" in clock.status(), 90, "what the watch says", clock.status)
        # A schedule has no time of its own before the one that was reached.
        kinds = {"SENSOR", "SCHEDULE"} if step > 0 else {"SENSOR"}
        ticked = f"select distinct type from job_ticks where id > {last} and status in ('SKIPPED', 'SUCCESS')"
        wait(lambda: kinds <= set(sql(machine, ticked)), 120, f"ticks of {kinds}", lambda: sql(machine, ticked))
    outcome = load.outcome()
    lost = load.writer.lost()
    note = f"{load.failed_launches} launches refused meanwhile; sensors tick, schedules " + (
        "too" if step > 0 else "wait for the time that was reached already"
    )
    print(f"{direction}: healthy after {seconds:.1f} s", outcome.lost(), note, clock.status(), sep="\n")
    what = f"{len(lost)} events" if lost else outcome.lost()
    rows.write("faults", f"the clock set {direction} by an hour", 1, what, [seconds], note)
    assert lost == set()
    assert outcome.untrue() == []
    assert outcome.undone() == []
