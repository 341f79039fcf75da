"""Draw docs/images/*.svg: the architecture from the rendered compose file, the flows from the code that they are of.

Usage: python docs/_generate/diagrams.py [--check]

Containers, networks, volumes, mounts and ports are those of roles/dagster_stack's template, rendered with the roles'
defaults; a release's are those of its `docker run`, a run's those of dagster.yaml. The phases of a deploy are those
that the module names, in the order in which its code comes to them; the steps of a backup are its calls. A phase or a
call that has no words here, or that is not in the code any more, is an error. With --check nothing is written, and the
exit status says whether something would be.
"""

from __future__ import annotations

import argparse
import ast
import itertools
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / ".collections")]

from ansible_collections.dataops.dagster_gce.plugins.module_utils import code_server, releases  # noqa: E402
from docs._generate import pages  # noqa: E402
from docs._generate.drawing import Drawing  # noqa: E402

UTILS = ROOT / "plugins/module_utils"
IMAGES = ROOT / "docs/images"

# Phase of a deploy: what happens, and what follows if it fails.
PHASES = {
    "check": (
        "asks the webserver what it serves; finishes what a killed deploy has left; starts again what should serve",
        "nothing was touched",
    ),
    "room": ("only with many releases running: waits until the daemon lets go of one", "nothing was touched"),
    "start": ("docker run of the candidate beside the release that serves", "the candidate is removed"),
    "gate": (
        "in the candidate: gRPC health, then the calls with which the webserver loads a location",
        "the candidate is removed; its cause and last log lines are shown",
    ),
    "cutover": ("workspace.yaml is replaced by rename: from here on the new release serves", ""),
    "current": ("releases/current names it", ""),
    "reload": ("GraphQL reloadWorkspace", "the release before gets the traffic back"),
    "assert": ("the webserver serves this container and image, LOADED", "the release before gets the traffic back"),
    "soak": ("only if asked for: watched under traffic", "the release before gets the traffic back"),
    "back": ("only after a failure behind the cutover: workspace.yaml, current and webserver go back", ""),
    "daemon": (
        "only if asked for, or at the first release: until the daemon uses it",
        "the release serves; the play fails",
    ),
    "retire": ("removes what nobody needs any more; the release before stays warm for a rollback", ""),
}  # fmt: skip

# Steps of a backup: the function that is called, a name, what it does.
BACKUP = (
    ("backup_database.end_leftovers", "clean up", "sessions that a killed backup has left in PostgreSQL are ended"),
    ("backup_files.require_room", "room", "refused where it would leave less free than 2 GB or 10 % of the disk"),
    ("backup_database.snapshot", "snapshot", "one exported snapshot of the database; runs go on being written"),
    ("backup_database.dump", "dump", "pg_dump of that snapshot, read through pg_restore, encrypted if there is a key"),
    ("_pack_machine", "machine", "dagster_home, compose file, release records, audit log"),
    ("_write_logs", "logs", "compute logs: what is new since the last backup, once a week everything"),
    ("backup_files.check", "read back", "every file is read from the disk again and compared"),
    ("files.replace", "manifest", "written last: versions, rows of every table, checksums"),
    ("os.rename", "there", "the folder gets its name; before, nobody takes it for a backup"),
    ("_send", "bucket", "where one is set: also what an outage left behind; compared with Google's checksums"),
    ("_remove_expired", "expire", "24 hours, 7 days, 4 weeks stay; the newest and the last proven one always"),
)

COLUMN, BOX, GAP, MARGIN = 176, 162, 30, 190


def rendered() -> tuple[dict[str, Any], dict[str, Any]]:
    """The compose file, and what of the machine's configuration is not in it."""
    with tempfile.TemporaryDirectory() as folder:
        program = str(Path(sys.executable).with_name("ansible-playbook"))
        command = [program, "-i", "localhost,", "docs/_generate/stack.yml", "-e", f"rendered_dir={folder}"]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        if done.returncode:
            raise SystemExit(f"docs/_generate/stack.yml failed:\n{done.stdout}{done.stderr}")
        compose = yaml.safe_load((Path(folder) / "compose.yml").read_text(encoding="utf-8"))
        return compose, json.loads((Path(folder) / "rest.json").read_text(encoding="utf-8"))


def source_of(mount: str | dict[str, Any]) -> str:
    """What is mounted: a volume's name or a path of the machine."""
    return str(mount["source"]) if isinstance(mount, dict) else mount.split(":")[0]


def containers(compose: dict[str, Any], rest: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Every container by name: image, networks, mounts, what it listens on, what the machine publishes of it."""
    database_port = rest["dagster_yaml"]["storage"]["postgres"]["postgres_db"]["port"]
    proxy_port = compose["services"]["dagster-daemon"]["environment"]["DOCKER_HOST"].rpartition(":")[2]
    listens = {"dagster-postgres": str(database_port), "dagster-engine-proxy": proxy_port}
    found = {}
    for name, service in compose["services"].items():
        published = [str(port) for port in service.get("ports", [])]
        found[name] = {
            "image": service["image"],
            "networks": list(service["networks"]),
            "mounts": [source_of(mount) for mount in service["volumes"]],
            "listens": published[0].rpartition(":")[2] if published else listens.get(name, ""),
            "published": published,
        }
    release = releases.Release("<release>", "sha256:…")
    settings = code_server.Settings(network=rest["network"], volume=rest["volume"])
    arguments = code_server.run_arguments(release, settings)
    given = list(itertools.pairwise(arguments))
    found[release.container] = {
        "image": "docker_dagster_core:<release>",
        "networks": [value for option, value in given if option == "--network"],
        "mounts": [source_of(value) for option, value in given if option == "--volume"],
        "listens": str(settings.port),
        "published": [value for option, value in given if option == "--publish"],
    }
    launcher = rest["dagster_yaml"]["run_launcher"]["config"]
    found["a container a run"] = {
        "image": "that of its release",
        "networks": [launcher["network"]],
        "mounts": [source_of(mount) for mount in launcher["container_kwargs"]["volumes"]],
        "listens": "",
        "published": [],
    }
    return found


def architecture(compose: dict[str, Any], rest: dict[str, Any]) -> Drawing:
    """Containers in a row, the networks above it, volumes and folders below."""
    found = containers(compose, rest)
    networks = list(compose["networks"])
    mounts = sorted(
        {mount for each in found.values() for mount in each["mounts"]}, key=lambda name: (name[:1] == "/", name)
    )
    width = MARGIN + COLUMN * len(found) + 10
    drawing = Drawing("Containers, networks, volumes and ports on the machine", width)
    bars: dict[str, float] = {}
    top = 78.0
    for name in networks:
        internal = " (internal)" if compose["networks"][name].get("internal") else ""
        _bar(drawing, top, width, "network", f"{name}{internal}")
        bars[f"network {name}"] = top
        top += GAP
    row = top + 30
    top = row + 92 + 34
    for name in mounts:
        _bar(drawing, top, width, "volume", name)
        bars[f"mount {name}"] = top
        top += GAP
    for number, (name, each) in enumerate(found.items()):
        left = MARGIN + COLUMN * number
        title = name.replace("_<", "\n_<").split("\n")
        lines = (
            [*title, *each["image"].replace(":", "\n:").split("\n")]
            if len(each["image"]) > 22
            else [*title, each["image"]]
        )
        lines += [f"listens on {each['listens']}"] if each["listens"] else []
        drawing.box(left, row, BOX, 92, "container", lines, bold=len(title))
        for place, network in enumerate(each["networks"]):
            drawing.line(left + 30 + place * 40, row, left + 30 + place * 40, bars[f"network {network}"] + 9)
        for place, mount in enumerate(each["mounts"]):
            drawing.line(left + 25 + place * 34, row + 92, left + 25 + place * 34, bars[f"mount {mount}"] + 9)
        for port in each["published"]:
            drawing.box(left - 12, 14, BOX + 24, 40, "machine", [port.rpartition(":")[0], "of the machine; SSH tunnel"])
            drawing.line(left + 120, 54, left + 120, row - 1, arrow=True)
    drawing.text(10, 32, "published", bold=True)
    drawing.text(10, bars[f"network {networks[0]}"] - 8, "networks", bold=True)
    drawing.text(10, row + 46, "containers", bold=True)
    drawing.text(10, bars[f"mount {mounts[0]}"] - 8, "volumes and folders", bold=True)
    return drawing


def _bar(drawing: Drawing, top: float, width: int, kind: str, name: str) -> None:
    drawing.box(MARGIN - 4, top, width - MARGIN - 6, 18, kind, [])
    drawing.text(10, top + 13, name.replace("/opt/dagster/dagster_home", "…/dagster_home"), pale=True)


def steps(title: str, rows: list[tuple[str, str, str]], heads: tuple[str, str, str]) -> Drawing:
    """A column of boxes with arrows between them; beside each what it does and what follows if it fails."""
    drawing = Drawing(title, 960)
    top = 40.0
    for left, head in zip((20, 210, 660), heads, strict=True):
        drawing.text(left, 22, head, bold=True)
    for number, (name, text, fails) in enumerate(rows):
        if number:
            drawing.line(95, top - 16, 95, top - 1, arrow=True)
        drawing.box(20, top, 150, 36, "container", [name])
        height = drawing.paragraph(210, top + 15, 430, text)
        if fails:
            height = max(height, drawing.paragraph(660, top + 15, 290, fails, pale=True))
        top += max(36, height + 4) + 16
    return drawing


def functions(names: list[str]) -> dict[str, ast.FunctionDef]:
    """Every function and method of some files of module_utils, as ``file.name``."""
    found = {}
    for name in names:
        tree = ast.parse((UTILS / f"{name}.py").read_text(encoding="utf-8"))
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef):
                found[f"{Path(name).name}.{node.name}"] = node
    return found


def called(node: ast.AST) -> str:
    """What a call calls, as it is written: ``self.phase``, ``deployment_cutover.prove``."""
    return ast.unparse(node.func) if isinstance(node, ast.Call) else ""


def in_order(node: ast.AST) -> list[ast.Call]:
    """The calls in a function, as they stand in the file."""
    calls = [each for each in ast.walk(node) if isinstance(each, ast.Call)]
    return sorted(calls, key=lambda call: (call.lineno, call.col_offset))


def phases() -> list[str]:
    """The phases that a deploy comes to, in the order of the code, each where it is first reached."""
    files = ["deployment", "deployment_recovery", "deployment_cutover", "deployment_housekeeping"]
    known = functions(files)
    found: list[str] = []

    def follow(name: str, seen: frozenset[str]) -> None:
        for call in in_order(known[name]):
            words = called(call)
            if words in ("self.phase", "task.phase") and isinstance(call.args[0], ast.Constant) and call.args[0].value:
                found.append(str(call.args[0].value))
            module, _dot, function = words.rpartition(".")
            target = f"{name.split('.')[0] if module in ('', 'self') else module}.{function}"
            # What is done about a deploy that was killed belongs to the check, with the phases that it finishes.
            if target in known and target not in seen and not name.startswith("deployment_recovery."):
                follow(target, seen | {target})

    follow("deployment.deploy", frozenset())
    return list(dict.fromkeys(found))


def deploy() -> Drawing:
    """The phases of a deploy."""
    there = phases()
    if set(there) != set(PHASES):
        raise SystemExit(
            f"phases of a deploy: the code has {sorted(there)}; docs/_generate/diagrams.py {sorted(PHASES)}"
        )
    return steps(
        "A release of the user code, phase by phase",
        [(name, *PHASES[name]) for name in there],
        ("phase", "what happens", "if it fails"),
    )


def backup() -> Drawing:
    """The steps of a backup."""
    known = functions(["operations/backup_take"])
    flat: list[str] = []

    def follow(name: str) -> None:
        for call in in_order(known[name]):
            words = called(call)
            flat.append(words)
            if words == "_write":
                follow(f"backup_take.{words}")

    follow("backup_take.take")
    at = 0
    for name, _step, _text in BACKUP:
        if name not in flat[at:]:
            raise SystemExit(f"steps of a backup: found no call of {name} after those before it in take(), _write()")
        at = flat.index(name, at) + 1
    return steps(
        "A backup, step by step", [(step, text, "") for _name, step, text in BACKUP], ("step", "what happens", "")
    )


def run(compose: dict[str, Any], rest: dict[str, Any]) -> Drawing:
    """What carries a run from its request to its end."""
    found = containers(compose, rest)
    postgres, webserver, daemon, proxy, release, container = found
    settings = rest["dagster_yaml"]
    limit = settings["concurrency"]["runs"]["max_concurrent_runs"]
    monitoring = settings["run_monitoring"]
    launcher = settings["run_launcher"]
    mounts = [name for name in found[container]["mounts"] if not name.startswith("/")]
    seconds = monitoring["poll_interval_seconds"]
    rows = [
        (
            "UI, schedule, sensor",
            f"{webserver} or {daemon} asks {release} on {found[release]['listens']} (gRPC) for the job",
            "",
        ),
        (postgres, f"holds the run as QUEUED (port {found[postgres]['listens']})", ""),
        (daemon, f"takes it from the queue while fewer than {limit} runs are in flight", "more wait in the queue"),
        (
            launcher["class"],
            f"asks {proxy} on {found[proxy]['listens']} for a container of the release's image",
            "what the proxy does not know is refused, and the run is a FAILURE with the reason",
        ),
        (
            container,
            f"executes it on {', '.join(found[container]['networks'])}; writes its events to {postgres}",
            f"its container dies: the daemon looks each {seconds} s and ends the run as FAILURE",
        ),
        (", ".join(mounts), "keeps its compute logs and the I/O managers' files, for the UI and the next run", ""),
        (postgres, "holds the run as SUCCESS or FAILURE; the UI shows it live through the webserver", ""),
    ]
    return steps("A run, from its request to its end", rows, ("who", "what happens", "otherwise"))


def pictures() -> dict[str, str]:
    """Every picture by its file's name."""
    compose, rest = rendered()
    drawn = {
        "architecture": architecture(compose, rest), "run": run(compose, rest), "deploy": deploy(), "backup": backup(),
    }  # fmt: skip
    return {f"{name}.svg": drawing.svg() for name, drawing in drawn.items()}


def main() -> int:
    """Write or check; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--check", action="store_true", help="write nothing, fail if something is out of date")
    check = parser.parse_args().check
    drawn = {IMAGES / name: svg for name, svg in pictures().items()}
    wrong = pages.keep(drawn, check, "is out of date; run `make docs-diagrams`")
    print("\n".join(wrong) or f"{len(drawn)} diagrams")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
