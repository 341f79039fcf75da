# SPDX-License-Identifier: Apache-2.0
"""How many connections PostgreSQL has to accept for one Dagster instance."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ansible.errors import AnsibleFilterError

DOCUMENTATION = """
name: postgres_budget
short_description: PostgreSQL's max_connections for one Dagster instance
version_added: 1.0.0
author: The dataops.dagster_gce authors
description:
  - Adds up what each part of Dagster can hold open at the same time and rounds up to the next ten.
  - "reserved + operations + webservers x 3 x (1 + webserver_overflow) + daemon_threads
    + code_servers x code_server_connections + runs x run_connections"
  - A webserver keeps one SQLAlchemy pool for each of the three storages; a pool is one connection and its overflow.
  - Everything else opens a connection for a query and closes it again, so it needs as many as it has threads or
    processes at work.
positional: _input
options:
  _input:
    description: The settings. A key that is left out has the default below; an unknown key is an error.
    type: dict
    required: true
    suboptions:
      runs:
        description: Runs at the same time (C(concurrency.runs.max_concurrent_runs)).
        type: int
        required: true
      run_connections:
        description: Connections of one run, the run's process and its step processes together.
        type: int
        default: 8
      webservers:
        description: Webservers, of which a read-only one may be the second.
        type: int
        default: 1
      webserver_overflow:
        description: The webserver's C(--db-pool-max-overflow).
        type: int
        default: 20
      daemon_threads:
        description: Threads of the daemon that query, for schedules, sensors, backfills, the queue and monitoring.
        type: int
        default: 20
      code_servers:
        description: >-
          Releases of the user code that run at the same time (the served one, the warm one, a candidate) and other code
          locations.
        type: int
        default: 3
      code_server_connections:
        description: Connections of one code server, for the ticks that it evaluates.
        type: int
        default: 5
      operations:
        description: Room for backups, psql, health checks and monitoring.
        type: int
        default: 10
      reserved:
        description: PostgreSQL's C(superuser_reserved_connections).
        type: int
        default: 3
"""

EXAMPLES = """
- name: Five runs at the same time
  ansible.builtin.debug:
    msg: "{{ {'runs': 5} | dataops.dagster_gce.postgres_budget }}"  # => 160
"""

RETURN = """
_value:
  description: The value for C(max_connections), a multiple of ten.
  type: int
"""

DEFAULTS: dict[str, int] = {
    "run_connections": 8,
    "webservers": 1,
    "webserver_overflow": 20,
    "daemon_threads": 20,
    "code_servers": 3,
    "code_server_connections": 5,
    "operations": 10,
    "reserved": 3,
}
# The three storages: runs, event log, schedules.
_STORAGES = 3
# PostgreSQL's own upper bound is 262143; far below it a pooler is the better answer.
_MOST = 5000


def postgres_budget(settings: Mapping[str, Any]) -> int:
    """Add up the connections of all parts; see DOCUMENTATION for the keys of ``settings``.

    Raises:
        AnsibleFilterError: a key is unknown, missing, not a whole number, or the sum is beyond reason.
    """
    if not isinstance(settings, Mapping):
        raise AnsibleFilterError(f"postgres_budget: found {type(settings).__name__}; expected a dict")
    unknown = sorted(set(settings) - set(DEFAULTS) - {"runs"})
    if unknown:
        known = ", ".join(["runs", *DEFAULTS])
        raise AnsibleFilterError(
            f"postgres_budget: found the key {', '.join(map(repr, unknown))}; expected one of {known}"
        )
    if "runs" not in settings:
        raise AnsibleFilterError("postgres_budget: found no key 'runs'; expected the number of runs at the same time")
    value: dict[str, int] = {**DEFAULTS, **{key: _whole_number(key, found) for key, found in settings.items()}}
    total = (
        value["reserved"]
        + value["operations"]
        + value["webservers"] * _STORAGES * (1 + value["webserver_overflow"])
        + value["daemon_threads"]
        + value["code_servers"] * value["code_server_connections"]
        + value["runs"] * value["run_connections"]
    )
    if total > _MOST:
        raise AnsibleFilterError(
            f"postgres_budget: found {total} connections for {value['runs']} runs; expected at most {_MOST}: "
            "put a pooler in front of PostgreSQL or lower the limits"
        )
    return -(-total // 10) * 10


def _whole_number(key: str, found: object) -> int:
    least = 1 if key == "runs" else 0
    text = str(found)
    if isinstance(found, bool) or not (text.isascii() and text.isdigit()) or int(text) < least:
        raise AnsibleFilterError(
            f"postgres_budget: {key}: found {found!r}; expected a whole number of at least {least}"
        )
    return int(text)


class FilterModule:
    """What Ansible loads."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Name the filters."""
        return {"postgres_budget": postgres_budget}
