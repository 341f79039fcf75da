# SPDX-License-Identifier: Apache-2.0
"""Prometheus' text format: https://prometheus.io/docs/instrumenting/exposition_formats/."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping

from ansible_collections.dataops.dagster_gce.plugins.module_utils.operations.jobs import Metric

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_NAME = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*")
_LABEL = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*")
_TYPES = ("gauge", "counter", "untyped")


def render(metrics: Iterable[Metric]) -> str:
    """The samples, grouped by name with HELP and TYPE above.

    One bad line makes Prometheus refuse the whole answer. So what a job has written down and cannot be shown (a name, a
    label, a value that is no number) is left out, and of two samples with the same name and labels the first stays.
    """
    groups: dict[str, list[Metric]] = {}
    for each in metrics:
        if _NAME.fullmatch(each.name) and all(map(_LABEL.fullmatch, each.labels)) and _number(each.value) is not None:
            groups.setdefault(each.name, []).append(each)
    lines: list[str] = []
    for name, found in groups.items():
        # The first sample with a help text speaks for all of them.
        told = next((each for each in found if each.help), found[0])
        if told.help:
            lines.append(f"# HELP {name} {_escape(told.help)}")
        lines.append(f"# TYPE {name} {told.type if told.type in _TYPES else 'untyped'}")
        samples: dict[str, str] = {}
        for each in found:
            samples.setdefault(_labels(each.labels), _number(each.value) or "0")
        lines += [f"{name}{labels} {value}" for labels, value in samples.items()]
    return "\n".join(lines) + "\n"


def of_state(listed: object) -> list[Metric]:
    """The samples of a state file, as far as they can be shown."""
    found = []
    for each in listed if isinstance(listed, list) else []:
        if not isinstance(each, Mapping) or not isinstance(each.get("labels") or {}, Mapping):
            continue
        value = each.get("value")
        if not isinstance(value, int | float):
            continue
        labels = {str(name): str(text) for name, text in (each.get("labels") or {}).items()}
        told, kind = str(each.get("help") or ""), str(each.get("type") or "gauge")
        found.append(Metric(str(each.get("name")), float(value), told, kind, labels))
    return found


def _number(value: float) -> str | None:
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    if math.isnan(number):
        return "NaN"
    if math.isinf(number):
        return "+Inf" if number > 0 else "-Inf"
    # repr keeps every digit; a whole number needs no fraction.
    return str(int(number)) if number.is_integer() and abs(number) < 2**53 else repr(number)


def _labels(labels: Mapping[str, str]) -> str:
    if not labels:
        return ""
    return "{" + ",".join(f'{name}="{_quote(str(text))}"' for name, text in sorted(labels.items())) + "}"


def _escape(text: str) -> str:
    return text.replace("\\", "\\\\").replace("\n", "\\n")


def _quote(text: str) -> str:
    return _escape(text).replace('"', '\\"')
