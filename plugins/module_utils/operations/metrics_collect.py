# SPDX-License-Identifier: Apache-2.0
"""All samples within a deadline, whatever is broken, and not more often than they are worth."""

from __future__ import annotations

import concurrent.futures
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from ansible_collections.dataops.dagster_gce.plugins.module_utils.operations import (
    metrics_engine,
    metrics_machine,
    metrics_postgres,
    metrics_problems,
    metrics_text,
    metrics_webserver,
)
from ansible_collections.dataops.dagster_gce.plugins.module_utils.operations.jobs import Metric
from ansible_collections.dataops.dagster_gce.plugins.module_utils.operations.metrics_sample import metric


@dataclass(frozen=True)
class Part:
    """What is asked for samples; ``rest`` are the seconds for which an answer is as good as a new one."""

    name: str
    ask: Callable[[], Sequence[Metric]]
    rest: float


PARTS = (
    Part("machine", metrics_machine.machine, 10),
    Part("engine", metrics_engine.engine, 15),
    Part("database", metrics_postgres.postgres, 10),
    Part("webserver", metrics_webserver.webserver, 30),
    # The dearest: it looks at everything that dagster-gce status shows.
    Part("problems", metrics_problems.wrong, 30),
)


@dataclass
class _Answer:
    """What a part said last."""

    samples: Sequence[Metric] = ()
    ok: bool = False
    seconds: float = 0.0
    at: float | None = None
    running: concurrent.futures.Future[None] | None = field(default=None)


class Collector:
    """The parts' answers, each in a thread of its own: one that hangs makes nobody else wait.

    Args:
        parts: whom to ask.
        deadline: seconds until an answer has to stand, with what has come by then.
    """

    def __init__(self, parts: Sequence[Part] = PARTS, deadline: float = 8.0) -> None:
        self.parts = parts
        self.deadline = deadline
        self._answers: Mapping[str, _Answer] = {part.name: _Answer() for part in parts}
        self._lock = threading.Lock()

    def collect(self) -> str:
        """The samples as text. Who does not answer is ``up{part=…} 0``, and nothing of it is shown as if new."""
        with self._lock:
            waiting = [self._begin(part) for part in self.parts]
        concurrent.futures.wait([each for each in waiting if each], timeout=self.deadline)
        samples = []
        for part in self.parts:
            answer = self._answers[part.name]
            # Still under way: what it said before is too old to be shown.
            late = answer.running is not None and not answer.running.done()
            up = answer.ok and not late
            samples.append(metric("up", up, "Whether this part of the machine answers.", part=part.name))
            if answer.at is not None:
                text = "How long it took to ask."
                samples.append(metric("collect_seconds", round(answer.seconds, 3), text, part=part.name))
            if up:
                samples += answer.samples
        return metrics_text.render(samples)

    def _begin(self, part: Part) -> concurrent.futures.Future[None] | None:
        """Ask, unless somebody asks already or has just asked."""
        answer = self._answers[part.name]
        if answer.running is not None and not answer.running.done():
            return answer.running
        if answer.at is not None and time.monotonic() - answer.at < part.rest:
            return None
        future: concurrent.futures.Future[None] = concurrent.futures.Future()
        answer.running = future
        threading.Thread(target=self._ask, args=(part, answer, future), daemon=True).start()
        return future

    @staticmethod
    def _ask(part: Part, answer: _Answer, future: concurrent.futures.Future[None]) -> None:
        started = time.monotonic()
        try:
            samples: Sequence[Metric] = part.ask()
            answer.samples, answer.ok = samples, True
        except Exception as error:
            if answer.ok or answer.at is None:
                print(f"{part.name}: {error}", file=sys.stderr, flush=True)
            answer.samples, answer.ok = (), False
        finally:
            answer.at = time.monotonic()
            answer.seconds = answer.at - started
            future.set_result(None)
