# SPDX-License-Identifier: Apache-2.0
"""Options of the modules that look at a Dagster on its machine."""

from __future__ import annotations


class ModuleDocFragment:
    """How to reach the webserver, and what is called what."""

    DOCUMENTATION = r"""
options:
  webserver_url:
    description: Address of the webserver as seen from the machine.
    type: str
    default: http://127.0.0.1:3000
  webserver_container:
    description: Name of the webserver's container.
    type: str
    default: dagster-webserver
  daemon_container:
    description: Name of the daemon's container.
    type: str
    default: dagster-daemon
  location:
    description: Name of the code location.
    type: str
    default: dagster_core
"""

    ROOT = r"""
options:
  root:
    description: The folder in which everything lies.
    type: path
    default: /opt/dagster
"""
