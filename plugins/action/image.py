# SPDX-License-Identifier: Apache-2.0
"""The controller's half of the module image: hash the files, and send them only if the machine has no image of them."""

from __future__ import annotations

import tempfile
from typing import Any

from ansible.errors import AnsibleActionFail
from ansible.utils.display import Display

from ansible_collections.dataops.dagster_gce.plugins.module_utils.build_context import Context, ContextError, scan
from ansible_collections.dataops.dagster_gce.plugins.module_utils.image_reference import split_reference, valid_name
from ansible_collections.dataops.dagster_gce.plugins.plugin_utils.remote_half import RemoteHalf

display = Display()


class ActionModule(RemoteHalf):
    """See plugins/modules/image.py for the options."""

    MODULE = "dataops.dagster_gce.image"
    INTERNAL = ("content_hash", "context")

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """One remote call when the image is there; hash, transfer and build otherwise."""
        result: dict[str, Any] = super().run(tmp, task_vars)
        options = self._options()
        try:
            if options.get("reference"):
                if options.get("source"):
                    raise AnsibleActionFail("expected either reference (pull) or source (build), found both")
                split_reference(str(options["reference"]))
                result.update(self._remote(options, task_vars))
                return result
            context = self._context(options)
        except ContextError as error:
            raise AnsibleActionFail(str(error)) from error
        except ValueError as error:
            raise AnsibleActionFail(f"reference: {error}") from error
        options["content_hash"] = context.content_hash
        answer = self._remote(options, task_vars)
        if answer.pop("needs_context", False):
            answer = self._build(options, context, answer["reference"], task_vars)
        result.update(answer)
        return result

    def _context(self, options: dict[str, Any]) -> Context:
        """Hash the files; options of a wrong shape are one clear error before anything is sent."""
        name = str(options.get("name") or "")
        if not valid_name(name):
            raise ContextError(
                f"name: found {name!r}; expected lower case letters, digits and separators, without a tag"
            )
        if not options.get("source"):
            raise ContextError("expected either reference (pull) or source (build), found neither")
        for option in ("build_args", "unhashed_build_args"):
            options[option] = _texts(option, options.get(option) or {})
        lists: dict[str, list[str]] = {}
        for option in ("include", "exclude"):
            value = options.get(option) or []
            if not isinstance(value, list | tuple) or not all(isinstance(each, str) for each in value):
                raise ContextError(f"{option}: found {value!r}; expected a list of paths")
            lists[option] = [str(each) for each in value]
        if not lists["include"]:
            raise ContextError("include: found an empty list; expected the paths that the build needs")
        return scan(
            str(options["source"]),
            lists["include"],
            str(options.get("dockerfile") or "Dockerfile"),
            options["build_args"],
            lists["exclude"],
        )

    def _build(
        self, options: dict[str, Any], context: Context, reference: str, task_vars: dict[str, Any] | None
    ) -> dict[str, Any]:
        """Send the files and build."""
        host = (task_vars or {}).get("inventory_hostname", "the machine")
        log = options.get("log") or "/var/log/dataops-dagster-image.log"
        display.display(
            f"building {reference} on {host} from {len(context.entries)} files ({context.size / 1e6:.1f} MB); "
            f"to follow it there: tail -f {log}"
        )
        folder = self._make_tmp_path()
        remote = self._connection._shell.join_path(folder, "context.tar.gz")
        with tempfile.NamedTemporaryFile(suffix=".tar.gz") as packed:
            context.write_tar(packed)
            packed.flush()
            self._transfer_file(packed.name, remote)
        self._fixup_perms2([folder, remote])
        return self._remote({**options, "context": remote}, task_vars)


def _texts(option: str, given: Any) -> dict[str, str]:
    """A dict of texts, since Docker knows nothing else; ``true`` as YAML has it becomes ``true``, not ``True``."""
    if not isinstance(given, dict):
        raise ContextError(f"{option}: found {type(given).__name__}; expected a mapping")
    result: dict[str, str] = {}
    for name, value in given.items():
        if isinstance(value, bool):
            result[str(name)] = str(value).lower()
        elif isinstance(value, str | int | float):
            result[str(name)] = str(value)
        else:
            raise ContextError(f"{option}.{name}: found {type(value).__name__}; expected a text or a number")
    return result
