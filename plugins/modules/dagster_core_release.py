#!/usr/bin/python
# SPDX-License-Identifier: Apache-2.0
"""Ansible module: bring a release of the user code to traffic, or take it back."""

from __future__ import annotations

DOCUMENTATION = r"""
module: dagster_core_release
short_description: Bring a release of the user code to traffic, or go back to an earlier one
version_added: 1.0.0
description:
  - Starts the image in a container of its own beside the one that serves, waits until it serves gRPC and its
    definitions load, switches C(workspace.yaml) to it by rename, has the webserver reload, holds the webserver to what
    it serves then, and retires what nobody needs any more.
  - All of it happens on the machine in one task, under a lock, with a line in the audit log. A failure leaves the
    release that served as it was. A run that was killed at any point is finished by the next one.
  - Needs Python's standard library, PyYAML and the docker command on the machine; must run as root.
author: dataops (@dataops)
extends_documentation_fragment:
  - dataops.dagster_gce.attributes
  - dataops.dagster_gce.dagster
  - dataops.dagster_gce.dagster.root
attributes:
  check_mode:
    details: Works on a machine without Docker, too.
  diff_mode:
    details: Shows which release serves.
  idempotent:
    details: An image that serves already is no new release, unless O(force=true).
options:
  operation:
    description: What to do. V(clean) only retires what nobody needs any more.
    type: str
    choices: [deploy, rollback, clean]
    default: deploy
  image:
    description:
      - Reference of the image (tag, digest or id). Needed by V(deploy).
      - With O(pull=never) it has to be on the machine.
    type: str
  pull:
    description:
      - When to ask the registry for O(image), by tag or digest. V(always) gets what a tag names now; a digest names one
        image for ever and is pulled only where it is missing.
      - What cannot be pulled leaves everything as it was.
    type: str
    choices: [never, missing, always]
    default: never
    version_added: 1.1.0
  pull_timeout:
    description: Seconds that the pull may take.
    type: float
    default: 1800
    version_added: 1.1.0
  release:
    description: The release to go back to. Without it, V(rollback) takes the one that served before.
    type: str
  env_file:
    description: The file from which the release's environment is read. Default is C(.env) below O(root).
    type: path
  env_names:
    description: The variables of O(env_file) that the release gets. What O(environment) refuses is refused here too.
    type: list
    elements: str
    default: [POSTGRES_USER, POSTGRES_DB, GCP_PROJECT, GCP_LOCATION, BIGQUERY_PROJECT]
  environment:
    description:
      - More variables for the release and for the containers of its runs. Dagster stores them with each run, so they
        are settings and no secrets.
      - E(PATH), E(HOME), E(DOCKER_*) and E(LD_*) are refused, since the docker command that starts the release would
        obey them. They belong into the image.
    type: dict
    default: {}
  key_file:
    description:
      - A service account key on the machine, mounted read-only at the article's path. Empty where the machine's own
        account is used.
    type: path
  network:
    description: Docker network of the release.
    type: str
    default: dagster-network
  volume:
    description: Docker volume for I/O manager files and compute logs.
    type: str
    default: dagster-storage
  user:
    description: User and group of the process.
    type: str
    default: "10001:10001"
  command:
    description: Command instead of the image's own.
    type: list
    elements: str
    default: []
  memory:
    description: Memory limit of the release's container, e.g. V(2g). Empty means none.
    type: str
    default: 2g
  cpus:
    description: CPU limit, e.g. V(1.5). Empty means none.
    type: str
    default: ""
  pids:
    description: How many processes and threads it may have.
    type: int
    default: 1024
  read_only:
    description: Whether the root file system is read-only (C(/tmp) is a tmpfs).
    type: bool
    default: true
  start_timeout:
    description: Seconds until the release has to serve and have loaded its definitions.
    type: float
    default: 120
  soak_seconds:
    description: Seconds to watch the release under traffic; back to the one before if it dies or stops answering.
    type: float
    default: 0
  guard_seconds:
    description:
      - Seconds for which a process on the machine goes on watching the release after the task has ended. A release that
        the engine has to restart twice within them is taken back. The audit log tells, and C(failure.txt) beside its
        record.
    type: float
    default: 60
  wait_for_daemon:
    description: Whether to wait until the daemon has moved too (it refreshes once a minute).
    type: bool
    default: false
  daemon_timeout:
    description: Seconds to wait for the daemon.
    type: float
    default: 150
  keep_releases:
    description: How many releases (image and record) are kept, the one that serves included.
    type: int
    default: 5
  max_containers:
    description:
      - How many containers of releases may run at once. Beyond it, a deploy first waits for the daemon to let go of an
        older one.
    type: int
    default: 8
  keep_run_containers:
    description: How many containers of finished runs are kept.
    type: int
    default: 50
  keep_run_containers_hours:
    description: For how many hours containers of finished runs are kept.
    type: float
    default: 24
  force:
    description: Make a new release even if the image serves already.
    type: bool
    default: false
  ignore_disk:
    description: Whether to deploy although the disk guard refuses it for want of room. A rollback is never refused.
    type: bool
    default: false
  force_unlock:
    description: End the process that holds the lock instead of waiting for it.
    type: bool
    default: false
  lock_wait:
    description: Seconds to wait for another deploy to end.
    type: float
    default: 60
  who:
    description: Who deploys, for the lock and the audit log.
    type: str
    default: ""
  git_sha:
    description: The commit that is deployed, for the audit log.
    type: str
    default: ""
  log_lines:
    description: How many log lines of a container an error shows.
    type: int
    default: 40
"""

EXAMPLES = r"""
- name: Bring a release to traffic
  dataops.dagster_gce.dagster_core_release:
    image: europe-docker.pkg.dev/acme/dagster/docker_dagster_core:2026-11-22

- name: Back to the release that served before
  dataops.dagster_gce.dagster_core_release:
    operation: rollback
"""

RETURN = r"""
release:
  description: The release that serves now.
  returned: always
  type: str
  sample: 20261122T210031-0c96a5e4f3b2
previous:
  description: The release that served before.
  returned: always
  type: str
identity:
  description:
    - The image's id, the one name that the container, DAGSTER_CURRENT_IMAGE, run containers and the audit log use.
  returned: always
  type: str
digest:
  description: The registry's name for the image, where it has one.
  returned: always
  type: str
result:
  description: V(ok), V(unchanged), V(failed) or V(rolled_back).
  returned: always
  type: str
phases:
  description: Seconds spent in each phase.
  returned: always
  type: dict
retired:
  description: Releases whose containers were removed.
  returned: always
  type: list
  elements: str
draining:
  description: Releases whose containers have to stay for now, and why.
  returned: always
  type: dict
repaired:
  description: What an earlier run had left undone and this one finished.
  returned: always
  type: list
  elements: str
runs_before:
  description: Runs in flight before the cutover.
  returned: always
  type: int
runs_after:
  description: Runs in flight after the cutover.
  returned: always
  type: int
daemon_moved:
  description: Whether the daemon was seen to use the release; null where nobody waited for it.
  returned: always
  type: bool
"""

import dataclasses
import os
from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.dataops.dagster_gce.plugins.module_utils import (
    code_server,
    deployment,
    docker_cli,
    dotenv,
    guard,
    releases,
    workspace,
)

ARGUMENTS: dict[str, Any] = {
    "operation": {"type": "str", "choices": ["deploy", "rollback", "clean"], "default": "deploy"},
    "image": {"type": "str"},
    "pull": {
        "type": "str",
        "choices": [docker_cli.NEVER, docker_cli.MISSING, docker_cli.ALWAYS],
        "default": docker_cli.NEVER,
    },
    "pull_timeout": {"type": "float", "default": 1800},
    "release": {"type": "str"},
    "root": {"type": "path", "default": "/opt/dagster"},
    "env_file": {"type": "path"},
    "env_names": {
        "type": "list",
        "elements": "str",
        "default": [
            "POSTGRES_USER",
            "POSTGRES_DB",
            "GCP_PROJECT",
            "GCP_LOCATION",
            "BIGQUERY_PROJECT",
        ],
    },
    "environment": {"type": "dict", "default": {}},
    "key_file": {"type": "path", "no_log": False},
    "webserver_url": {"type": "str", "default": "http://127.0.0.1:3000"},
    "webserver_container": {"type": "str", "default": "dagster-webserver"},
    "daemon_container": {"type": "str", "default": "dagster-daemon"},
    "location": {"type": "str", "default": "dagster_core"},
    "network": {"type": "str", "default": "dagster-network"},
    "volume": {"type": "str", "default": "dagster-storage"},
    "user": {"type": "str", "default": "10001:10001"},
    "command": {"type": "list", "elements": "str", "default": []},
    "memory": {"type": "str", "default": "2g"},
    "cpus": {"type": "str", "default": ""},
    "pids": {"type": "int", "default": 1024},
    "read_only": {"type": "bool", "default": True},
    "start_timeout": {"type": "float", "default": 120},
    "soak_seconds": {"type": "float", "default": 0},
    "guard_seconds": {"type": "float", "default": 60},
    "wait_for_daemon": {"type": "bool", "default": False},
    "daemon_timeout": {"type": "float", "default": 150},
    "keep_releases": {"type": "int", "default": 5},
    "max_containers": {"type": "int", "default": 8},
    "keep_run_containers": {"type": "int", "default": 50},
    "keep_run_containers_hours": {"type": "float", "default": 24},
    "force": {"type": "bool", "default": False},
    "force_unlock": {"type": "bool", "default": False},
    "ignore_disk": {"type": "bool", "default": False},
    "lock_wait": {"type": "float", "default": 60},
    "who": {"type": "str", "default": ""},
    "git_sha": {"type": "str", "default": ""},
    "log_lines": {"type": "int", "default": 40},
}


def read_environment(path: str, names: list[str]) -> dict[str, str]:
    """The named variables of the environment file; a name that it does not hold is left out.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is no environment file.
    """
    with open(path, encoding="utf-8") as stream:
        found = dotenv.parse(stream.read())
    return {name: found[name] for name in names if name in found}


def plain(values: dict[str, Any]) -> dict[str, str]:
    """Settings as text.

    Raises:
        ValueError: one holds nothing, a list or a mapping.
    """
    for name, value in values.items():
        if not isinstance(value, (str, int, float)):
            found = "nothing" if value is None else repr(value)
            raise ValueError(f"dagster_core_environment: {name}: found {found}; expected a text or a number")
    return {str(key): str(value) for key, value in values.items()}


def settings_from(parameters: dict[str, Any], environment: dict[str, str]) -> code_server.Settings:
    """How containers are run, from the module's parameters.

    Raises:
        ValueError: a setting of the release's environment is none.
    """
    return code_server.Settings(
        network=parameters["network"],
        volume=parameters["volume"],
        user=parameters["user"],
        location=parameters["location"],
        memory=parameters["memory"],
        cpus=parameters["cpus"],
        pids=parameters["pids"],
        key_file=parameters["key_file"] or "",
        database_folder=os.path.join(parameters["root"], "dagster_home", "database"),
        read_only=parameters["read_only"],
        command=tuple(parameters["command"]),
        environment=environment,
        extra=plain(parameters["environment"]),
    )


def options_from(parameters: dict[str, Any]) -> deployment.Options:
    """What to keep and how long to wait, from the module's parameters."""
    names = {each.name for each in dataclasses.fields(deployment.Options)}
    return deployment.Options(**{key: value for key, value in parameters.items() if key in names})


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        ARGUMENTS,
        supports_check_mode=True,
        required_if=[("operation", "deploy", ["image"])],
    )
    # A bare machine has no PyYAML yet; what would happen there is known without it.
    if not workspace.available() and not module.check_mode:
        module.fail_json(msg="PyYAML is not installed on the machine; expected the package python3-yaml")
    parameters = module.params
    path = parameters["env_file"] or os.path.join(parameters["root"], ".env")
    environment: dict[str, str] = {}
    try:
        environment = read_environment(path, parameters["env_names"])
    except OSError as error:
        if not module.check_mode:
            module.fail_json(
                msg=f"{path}: {error.strerror}; expected the environment file that the role dagster_home writes"
            )
    except ValueError as error:
        module.fail_json(msg=f"{path}: {error}")
    try:
        settings = settings_from(parameters, environment)
    except ValueError as error:
        module.fail_json(msg=f"{error}. Nothing was touched.")
    task = deployment.Deployment(options_from(parameters), settings)
    before = task.store.current() or ""
    if module.check_mode:
        _predict(module, task, before)
    try:
        if parameters["operation"] == "deploy":
            outcome = task.deploy(parameters["image"])
        elif parameters["operation"] == "rollback":
            outcome = task.rollback(parameters["release"] or None)
        else:
            outcome = task.clean()
    except releases.LockedError as error:
        module.fail_json(msg=str(error), holder=error.holder)
    except (deployment.DeploymentError, docker_cli.DockerError) as error:
        module.fail_json(msg=str(error), **_facts(task.outcome))
    for each in outcome.repaired:
        module.warn(each)
    if outcome.changed and outcome.release and parameters["guard_seconds"] > 0:
        guard.stay_behind(task, outcome.release, parameters["guard_seconds"])
    module.exit_json(**_facts(outcome), diff=_diff(before, outcome.release or before))


def _predict(module: AnsibleModule, task: deployment.Deployment, before: str) -> None:
    operation = module.params["operation"]
    if operation == "deploy":
        changed = task.would_change(module.params["image"])
        if module.params["pull"] == docker_cli.ALWAYS and not changed and "@" not in module.params["image"]:
            module.warn(f"{module.params['image']}: the registry was not asked whether the tag has moved")
        module.exit_json(
            changed=changed,
            result="predicted",
            release=before,
            diff=_diff(before, "a new release" if changed else before),
        )
    if operation == "rollback":
        try:
            target = task.rollback_target(module.params["release"] or None)
        except (deployment.DeploymentError, docker_cli.DockerError) as error:
            module.fail_json(msg=str(error))
        changed = target.release != task.serving_release()
        module.exit_json(changed=changed, result="predicted", release=before, diff=_diff(before, target.release))
    module.exit_json(changed=False, result="predicted", release=before)


def _facts(outcome: deployment.Outcome) -> dict[str, Any]:
    return {key: value for key, value in dataclasses.asdict(outcome).items() if key not in ("failure",)}


def _diff(before: str, after: str) -> dict[str, str]:
    return {
        "before_header": "release that serves",
        "after_header": "release that serves",
        "before": f"{before or 'none'}\n",
        "after": f"{after or 'none'}\n",
    }


if __name__ == "__main__":
    main()
