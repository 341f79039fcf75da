#!/usr/bin/python
# SPDX-License-Identifier: Apache-2.0
"""Ansible module: prove that a Dagster works."""

from __future__ import annotations

DOCUMENTATION = r"""
module: dagster_proof
short_description: Prove that Dagster works, and show the cause where it does not
version_added: 1.0.0
description:
  - Waits until every required daemon is healthy and the code location is LOADED without an error.
  - If asked, launches a job through GraphQL and waits until the run is SUCCESS.
  - A failure shows the cause; the last log lines of the container that is at fault, or the error event of the run with
    its stack trace.
author: dataops (@dataops)
extends_documentation_fragment:
  - dataops.dagster_gce.attributes.reads
  - dataops.dagster_gce.dagster
attributes:
  check_mode:
    description: Proves nothing and touches nothing.
  idempotent:
    description: Waiting changes nothing; a launched run is one more run, which is not reported as a change.
options:
  launch:
    description: Whether to launch O(job).
    type: bool
    default: false
  job:
    description: Name of the job that is launched.
    type: str
    default: platform_check
  job_required:
    description:
      - Whether it is an error that the location has no such job. Otherwise the launch is left out with a warning.
    type: bool
    default: false
  tags:
    description: Tags of the run.
    type: dict
    default: {}
  timeout:
    description: Seconds for everything together.
    type: float
    default: 180
  log_lines:
    description: How many log lines of a container an error shows.
    type: int
    default: 30
"""

EXAMPLES = r"""
- name: Prove that everything works, with a run
  dataops.dagster_gce.dagster_proof:
    launch: true
"""

RETURN = r"""
daemons:
  description: The required daemons and whether each is healthy.
  returned: always
  type: dict
image:
  description: The image that the location serves.
  returned: always
  type: str
host:
  description: The container that serves the location.
  returned: always
  type: str
run_id:
  description: The run that was launched; empty where none was.
  returned: always
  type: str
run_status:
  description: The state in which it ended.
  returned: always
  type: str
run_seconds:
  description: Seconds from its launch to its end.
  returned: always
  type: float
not_launched:
  description: Why no run was launched although one was asked for.
  returned: always
  type: str
seconds:
  description: Seconds for everything.
  returned: always
  type: float
"""

import dataclasses
from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.dataops.dagster_gce.plugins.module_utils import graphql, proof

ARGUMENTS: dict[str, Any] = {
    "webserver_url": {"type": "str", "default": "http://127.0.0.1:3000"},
    "location": {"type": "str", "default": "dagster_core"},
    "launch": {"type": "bool", "default": False},
    "job": {"type": "str", "default": "platform_check"},
    "job_required": {"type": "bool", "default": False},
    "tags": {"type": "dict", "default": {}},
    "timeout": {"type": "float", "default": 180},
    "webserver_container": {"type": "str", "default": "dagster-webserver"},
    "daemon_container": {"type": "str", "default": "dagster-daemon"},
    "log_lines": {"type": "int", "default": 30},
}


def main() -> None:
    """Run the module."""
    module = AnsibleModule(ARGUMENTS, supports_check_mode=True)
    if module.check_mode:
        module.exit_json(changed=False, **dataclasses.asdict(proof.Proof(not_launched="check mode")))
    given = module.params
    expected = proof.Expectation(
        location=given["location"],
        job=given["job"],
        launch=given["launch"],
        job_required=given["job_required"],
        deadline=given["timeout"],
        webserver_container=given["webserver_container"],
        daemon_container=given["daemon_container"],
        log_lines=given["log_lines"],
        tags={str(key): str(value) for key, value in given["tags"].items()},
    )
    try:
        seen = proof.prove(graphql.Webserver(given["webserver_url"]), expected)
    except (proof.ProofError, graphql.GraphQLError) as error:
        module.fail_json(msg=str(error))
    if seen.not_launched:
        module.warn(seen.not_launched)
    module.exit_json(changed=False, **dataclasses.asdict(seen))


if __name__ == "__main__":
    main()
