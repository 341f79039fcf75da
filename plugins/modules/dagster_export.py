#!/usr/bin/python
# SPDX-License-Identifier: Apache-2.0
"""The instance in a folder of the controller, ready for Dagster's Helm chart."""

from __future__ import annotations

DOCUMENTATION = r"""
module: dagster_export
short_description: Export the instance for Dagster's Helm chart
version_added: 1.0.0
description:
  - Writes C(values.yaml), a verified dump of the database, the machine's C(dagster.yaml), C(export.json), checksums and
    a C(README.md) with the commands in their order to a folder on the controller.
  - Everything that is wrong is said at once, before anything is written.
  - No secret of the machine is in it; it is refused where one would be. What users wrote into run configurations is
    in the dump.
author: dataops (@dataops)
extends_documentation_fragment: dataops.dagster_gce.attributes
attributes:
  check_mode:
    details: Looks, shows C(values.yaml) as a difference, and takes no dump.
  diff_mode:
    details: Shows C(values.yaml).
  idempotent:
    support: none
    details: Each one takes a new dump.
options:
  directory:
    description: The folder on the controller; it is made if it is not there.
    type: path
    required: true
  registry:
    description:
      - Where the release's image will be pushed if no registry has it, as
        C(europe-west1-docker.pkg.dev/PROJECT/REPOSITORY).
      - Without it such an image is refused.
    type: str
    default: ""
  webserver_image:
    description:
      - Image of webserver and daemon in the cluster. Default is the machine's if a cluster can use it, else the
        chart's.
    type: str
    default: ""
  final:
    description: Whether this is the one to move with. Refused while webserver or daemon runs, or runs are in flight.
    type: bool
    default: false
  compression:
    description: gzip level of the dump, 0 to 9.
    type: int
    default: 6
  operation:
    description: Set by the action.
    type: str
    choices: [look, dump, remove]
    default: look
  texts:
    description: Set by the action, the files that are about to be written.
    type: dict
    default: {}
"""

EXAMPLES = r"""
- name: The instance, for Kubernetes
  dataops.dagster_gce.dagster_export:
    directory: build/export/dagster-prod
"""

RETURN = r"""
directory:
  description: The folder on the controller.
  returned: success
  type: str
summary:
  description: What was exported.
  returned: success
  type: str
problems:
  description: What a person has to know before moving.
  returned: success
  type: list
  elements: str
"""

import os
from typing import Any, NoReturn

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.dataops.dagster_gce.plugins.module_utils import docker_cli, dotenv, instance_export, workspace
from ansible_collections.dataops.dagster_gce.plugins.module_utils.operations import config, database, jobs

FAILURES = (
    jobs.JobError,
    config.ConfigError,
    database.DatabaseError,
    docker_cli.DockerError,
    dotenv.DotenvError,
    OSError,
)


class Export:
    """The machine's half; every method that fails ends the module."""

    def __init__(self, module: AnsibleModule) -> None:
        self.module = module

    def run(self) -> NoReturn:
        """Do it and end the module."""
        params = self.module.params
        if not workspace.available():
            self.module.fail_json(msg="PyYAML is not installed on the machine; expected the package python3-yaml")
        work = {"look": self.look, "dump": self.dump, "remove": self.remove}[params["operation"]]
        try:
            found = work()
        except instance_export.ExportError as error:
            self.module.fail_json(msg="\n".join([*error.problems, "Nothing has been written."]))
        except FAILURES as error:
            self.module.fail_json(msg=str(error))
        self.module.exit_json(changed=False, **found)

    def look(self) -> dict[str, Any]:
        """What there is."""
        params = self.module.params
        wanted = instance_export.Wanted(params["registry"], params["webserver_image"], params["final"])
        return {"facts": {**instance_export.look(wanted), "final": params["final"]}}

    def dump(self) -> dict[str, Any]:
        """The database into a file that whoever logged in may fetch."""
        if held := instance_export.secrets_in(self.module.params["texts"]):
            raise instance_export.ExportError(
                [f"{each}; expected none: take it out of dagster_home_dagster_yaml_overrides" for each in held]
            )
        reader = os.environ.get("SUDO_UID", "")
        return {"dump": instance_export.dump(self.module.params["compression"], int(reader) if reader else None)}

    def remove(self) -> dict[str, Any]:
        """The fetched file away."""
        return {"removed": instance_export.remove()}


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "directory": {"type": "path", "required": True},
            "registry": {"type": "str", "default": ""},
            "webserver_image": {"type": "str", "default": ""},
            "final": {"type": "bool", "default": False},
            "compression": {"type": "int", "default": 6},
            "operation": {"type": "str", "choices": ["look", "dump", "remove"], "default": "look"},
            "texts": {"type": "dict", "default": {}},
        },
        supports_check_mode=True,
    )
    Export(module).run()


if __name__ == "__main__":
    main()
