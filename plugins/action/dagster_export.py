# SPDX-License-Identifier: Apache-2.0
"""The controller's half of the module dagster_export: what the machine tells becomes files here."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from ansible.errors import AnsibleActionFail, AnsibleError

from ansible_collections.dataops.dagster_gce.plugins.plugin_utils import helm_readme, helm_values
from ansible_collections.dataops.dagster_gce.plugins.plugin_utils.remote_half import RemoteHalf

FORMAT = 1
DUMP = "database.dump"
_VALUES_HEAD = """\
# For Dagster's Helm chart, version {version}.
# Made by playbooks/export_helm.yml; README.md says what to fill in and in which order. No secret is in it.
"""


@dataclass(frozen=True)
class Export:
    """What one export writes: ``facts`` is the machine's answer, ``values`` and ``instance`` what was made of it."""

    host: str
    facts: dict[str, Any]
    instance: dict[str, Any]
    values: dict[str, Any]

    @property
    def version(self) -> str:
        """Dagster's."""
        return str(self.facts["webserver"]["packages"]["dagster"])

    def texts(self, dump: dict[str, Any]) -> dict[str, str]:
        """The files beside the dump; ``dump`` is empty before there is one."""
        texts = {
            "values.yaml": values_text(self.values, self.version),
            "dagster.yaml": _instance_text(self.instance),
            "README.md": helm_readme.readme(self.host, self.facts, self.instance, self.values, dump),
        }
        if dump:
            texts["export.json"] = json.dumps(manifest(self, dump), indent=1) + "\n"
        return texts


class ActionModule(RemoteHalf):
    """See plugins/modules/dagster_export.py for the options."""

    MODULE = "dataops.dagster_gce.dagster_export"
    INTERNAL = ("operation", "texts")

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Look, then dump, fetch and write; to look touches nothing."""
        result: dict[str, Any] = super().run(tmp, task_vars)
        options = self._options()
        if not options.get("directory"):
            raise AnsibleActionFail("directory: found nothing; expected a folder on the controller")
        directory = self._directory(str(options["directory"]))
        looked = self._remote({**options, "operation": "look"}, task_vars)
        if looked.get("failed"):
            return {**result, **looked}
        export = self._export(options, looked["facts"], task_vars or {})
        result |= {
            "changed": True,
            "directory": str(directory),
            "problems": problems(export.facts, export.values),
            "summary": f"would export Dagster {export.version} to {directory}",
            "diff": [_difference(directory / "values.yaml", export.texts({})["values.yaml"])],
        }
        if not self._task.check_mode:
            result.update(self._take(options, export, directory, task_vars))
        return result

    def _export(self, options: dict[str, Any], facts: dict[str, Any], variables: dict[str, Any]) -> Export:
        instance = _mapping(facts["dagster_yaml"])
        wanted = str(options.get("registry") or ""), str(options.get("webserver_image") or "")
        try:
            values = helm_values.values(facts, instance, *wanted)
        except helm_values.HelmError as error:
            raise AnsibleActionFail(f"{error}. Nothing has been written.") from error
        return Export(str(variables.get("inventory_hostname", "machine")), facts, instance, values)

    def _take(
        self, options: dict[str, Any], export: Export, directory: Path, task_vars: dict[str, Any] | None
    ) -> dict[str, Any]:
        """Dump, fetch and write; what the result says of it."""
        answer = self._remote({**options, "operation": "dump", "texts": export.texts({})}, task_vars)
        if answer.get("failed"):
            return {**answer, "changed": False}
        dump = answer["dump"]
        try:
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._fetch(dump, directory)
            _write(directory, export.texts(dump))
        except OSError as error:
            raise AnsibleActionFail(f"{error.filename or directory} cannot be written: {error.strerror}") from error
        finally:
            self._remote({**options, "operation": "remove"}, task_vars)
        tables = dump["database"]["tables"]
        return {
            "summary": f"{directory}: {tables.get('runs', 0)} runs, {sum(tables.values())} rows,"
            f" {helm_readme.size(dump['size'])}; README.md says what comes next"
        }

    def _directory(self, given: str) -> Path:
        """The folder, which can be made or written to.

        Raises:
            AnsibleActionFail: it cannot.
        """
        path = Path(given).expanduser()
        if not path.is_absolute():
            path = Path.cwd() / path
        nearest = next(each for each in (path, *path.parents) if each.exists())
        if not nearest.is_dir():
            why = f"{nearest} is no folder"
        elif not os.access(nearest, os.W_OK | os.X_OK):
            why = f"{nearest} cannot be written to"
        else:
            return path
        raise AnsibleActionFail(
            f"dagster_export_dir: found {given!r}, but {why}; expected a folder on the controller that you may write"
            " to. Nothing has been written."
        )

    def _fetch(self, dump: dict[str, Any], directory: Path) -> None:
        """The dump onto the controller, whole and compared, under its name only then."""
        partial = directory / f".{DUMP}.partial"
        handle = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        os.close(handle)
        try:
            self._connection.fetch_file(dump["path"], str(partial))
            found = _sha256(partial)
            if found != dump["sha256"]:
                raise AnsibleActionFail(
                    f"{DUMP}: found sha256 {found} here, expected {dump['sha256']}: it changed on its way; try again"
                )
            os.chmod(partial, 0o600)
            os.replace(partial, directory / DUMP)
        except AnsibleError as error:
            raise AnsibleActionFail(f"{DUMP} cannot be fetched: {error}") from error
        finally:
            partial.unlink(missing_ok=True)


def values_text(values: dict[str, Any], version: str) -> str:
    """The text of values.yaml."""
    # Through JSON: a dict that stands in two places would become an anchor.
    plain = json.loads(json.dumps(values))
    return _VALUES_HEAD.format(version=version) + yaml.safe_dump(plain, sort_keys=False, width=120)


def manifest(export: Export, dump: dict[str, Any]) -> dict[str, Any]:
    """export.json: what was exported, for programs."""
    facts, values = export.facts, export.values
    return {
        "format": FORMAT,
        "host": export.host,
        "final": facts["final"],
        "versions": {"dagster": export.version, "postgres": facts["database"]["major"]},
        "release": {name: facts["core"][name] for name in ("release", "git_sha", "image")},
        "webserver": {name: facts["webserver"][name] for name in ("id", "digest")},
        "images": {
            "core": values["dagster-user-deployments"]["deployments"][0]["image"],
            "webserver": values["dagsterWebserver"]["image"],
        },
        "database": dump["database"],
        "schema_revision": dump["schema_revision"],
        "dump": {"size": dump["size"], "sha256": dump["sha256"]},
    }


def problems(facts: dict[str, Any], values: dict[str, Any]) -> list[str]:
    """What a person has to know before moving."""
    found = []
    if facts["database"]["in_flight"]:
        found.append(
            f"{facts['database']['in_flight']} runs were in flight and would stay STARTED there: a rehearsal only"
        )
    if facts["database"]["waiting"]:
        found.append(
            f"{facts['database']['waiting']} runs wait in the queue for an image that only this machine has: cancel"
            " them, and launch them again there"
        )
    if not facts["core"]["image"]["digest"]:
        image = values["dagster-user-deployments"]["deployments"][0]["image"]
        found.append(
            f"no registry has the release's image: push it as {image['repository']}:{image['tag']} (README.md)"
        )
    if not facts["core"]["packages"]["dagster-k8s"]:
        found.append("the release's image has no dagster-k8s, which Dagster's documentation asks for (README.md)")
    return found


def _mapping(text: str) -> dict[str, Any]:
    try:
        found = yaml.safe_load(text) or {}
    except yaml.YAMLError as error:
        raise AnsibleActionFail(f"the machine's dagster.yaml is not YAML: {error}") from error
    if not isinstance(found, dict):
        raise AnsibleActionFail("the machine's dagster.yaml: expected a mapping; run site.yml again")
    return found


def _instance_text(instance: dict[str, Any]) -> str:
    return "# The machine's dagster.yaml, without secrets: to compare with, not for the cluster.\n" + yaml.safe_dump(
        helm_values.redacted(instance), sort_keys=False, width=120
    )


def _difference(path: Path, after: str) -> dict[str, str]:
    before = path.read_text(encoding="utf-8") if path.is_file() else ""
    return {"before_header": str(path), "after_header": str(path), "before": before, "after": after}


def _write(directory: Path, texts: dict[str, str]) -> None:
    """The texts, the checksums of everything last: an export without them is none."""
    sums = directory / "SHA256SUMS"
    sums.unlink(missing_ok=True)
    for name, text in texts.items():
        _replace(directory / name, text)
    names = sorted([*texts, DUMP])
    _replace(sums, "".join(f"{_sha256(directory / name)}  {name}\n" for name in names))


def _replace(path: Path, text: str) -> None:
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text(text, encoding="utf-8")
    os.replace(partial, path)


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
