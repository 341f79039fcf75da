# SPDX-License-Identifier: Apache-2.0
"""The one list of what is wrong: the status, the metrics and the notifications show this and no other."""

from __future__ import annotations

from typing import Any

from ansible_collections.dataops.dagster_gce.plugins.module_utils import code_server, deployment, status
from ansible_collections.dataops.dagster_gce.plugins.module_utils.operations import config
from ansible_collections.dataops.dagster_gce.plugins.module_utils.operations.jobs import Problem

# A webserver that takes longer is as good as down, and who asks has to answer in time.
PATIENCE = 5.0


def task(patience: float = PATIENCE) -> deployment.Deployment:
    """What looks at this machine's Dagster; ``patience`` are the seconds that the webserver has for one answer."""
    stack = config.stack()
    found = deployment.Deployment(
        deployment.Options(
            root=stack.root,
            webserver_url=stack.webserver_url,
            webserver_container=stack.webserver_container,
            daemon_container=stack.daemon_container,
        ),
        code_server.Settings(location=stack.location),
    )
    found.webserver.timeout = patience
    return found


def gather(deploys: int = 5, patience: float = PATIENCE) -> dict[str, Any]:
    """The whole state, as ``status.yml`` shows it.

    Raises:
        config.ConfigError: where Dagster stands cannot be read.
    """
    return status.gather(task(patience), deploys)


def of(state: dict[str, Any]) -> list[Problem]:
    """The problems of a state that `gather` has found."""
    return [Problem(**each) for each in state["problems"]]


def all(patience: float = PATIENCE) -> list[Problem]:
    """Everything that is wrong, critical problems first.

    Raises:
        config.ConfigError: where Dagster stands cannot be read.
    """
    return of(gather(0, patience))
