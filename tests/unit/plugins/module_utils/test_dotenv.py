"""Values come through a .env file as they are: our own parser's word, Compose's word, and a container's."""

from __future__ import annotations

import json
import random
import shutil
import subprocess
from pathlib import Path

import pytest

from ansible_collections.dataops.dagster_gce.plugins.module_utils import dotenv

# What each quoting treats in its own way, and what a careless splitlines() takes for a line end.
HOSTILE = [
    *"$#'\"\\ \t{}()`!*?~&|;<>=:@%^,.-_aZ0é漢🦀n",
    "\u2028",
    "\u0085",
    "\xa0",
    "\x0b",
    "\x0c",
    "\x7f",
    "\x01",
    "$$",
    "\\\\",
]
EXAMPLES = [
    "", " ", " a ", "#", " #a", "a #b", "a#b", "$", "$$", "$a", "${a}", "\\$a", "'", "\"", "'a'", '"a"',
    "\\", "\\\\", "a\\", "\\'", "\\\\'", "it's $5 \"or\" \\more\\", "\\n", "a\\nb",
    "export A=1", "pässwörd", "{{ x }}", "a=b", "=", "~", "null", "0123", "%s",
]  # fmt: skip


def hostile_values(count: int) -> dict[str, str]:
    source = random.Random(20261122)
    made = ["".join(source.choice(HOSTILE) for _ in range(source.randint(0, 16))) for _ in range(count)]
    return {f"V{number}": value for number, value in enumerate([*EXAMPLES, *made])}


def test_what_is_rendered_is_parsed_again() -> None:
    values = hostile_values(5000)
    assert dotenv.parse(dotenv.render(values, "a header\nof two lines")) == values


@pytest.mark.skipif(shutil.which("docker") is None, reason="no docker command")
def test_compose_reads_the_same(tmp_path: Path) -> None:
    values = hostile_values(1500)
    (tmp_path / ".env").write_text(dotenv.render(values), encoding="utf-8")
    lines = "".join(f"      {name}: ${{{name}}}\n" for name in values)
    (tmp_path / "compose.yml").write_text(
        f"services:\n  file:\n    image: x\n    env_file: [.env]\n  name:\n    image: x\n    environment:\n{lines}",
        encoding="utf-8",
    )
    command = ["docker", "compose", "--project-directory", str(tmp_path), "config", "--format", "json"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    services = json.loads(done.stdout)["services"]
    for service in ("file", "name"):
        # `config` prints a file that can be read again, in which a dollar sign is two.
        read = {name: value.replace("$$", "$") for name, value in services[service]["environment"].items()}
        assert read == values


@pytest.mark.skipif(shutil.which("docker") is None, reason="no docker command")
@pytest.mark.parametrize("value", ['it\'s $5 "or" \\more\\ #x', "\\'", "a\\", "pä $$x ${y} '"])
def test_a_container_sees_the_same(tmp_path: Path, value: str) -> None:
    image = "python:3.13-slim"
    if subprocess.run(["docker", "image", "inspect", image], capture_output=True, check=False).returncode:
        pytest.skip(f"no image {image} in the engine")
    (tmp_path / ".env").write_text(dotenv.render({"V": value}), encoding="utf-8")
    program = "import json, os, sys; sys.stdout.write(json.dumps(os.environ['V']))"
    service = {"image": image, "env_file": [".env"], "network_mode": "none", "entrypoint": ["python3", "-c", program]}
    (tmp_path / "compose.yml").write_text(json.dumps({"services": {"a": service}}), encoding="utf-8")
    compose = [
        "docker",
        "compose",
        "--project-directory",
        str(tmp_path),
        "--project-name",
        f"dotenv-{tmp_path.name.replace('_', '-')}",
    ]
    try:
        done = subprocess.run([*compose, "run", "--rm", "-T", "a"], capture_output=True, text=True, check=True)
    finally:
        subprocess.run([*compose, "down"], capture_output=True, check=True)
    assert json.loads(done.stdout) == value


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("PASSWORD", "a\nb", "PASSWORD: found a text with a line end"),
        ("PASSWORD", "a\rb", "PASSWORD: found a text with a carriage return"),
        ("PASSWORD", "a\0b", "PASSWORD: found a text with a NUL character"),
        ("PASSWORD", "a\ud800", "PASSWORD: found a text that is not valid Unicode"),
        ("2ND", "a", "2ND: no name"),
        ("A-B", "a", "A-B: no name"),
        ("A\nB", "a", "no name"),
    ],
)
def test_what_a_file_cannot_hold_is_refused_by_name(name: str, value: str, words: str) -> None:
    with pytest.raises(dotenv.DotenvError) as refused:
        dotenv.render({name: value})
    assert words in str(refused.value)


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("# x\n\nA=1\n  B = two words # three\nexport C='3'\r\n", {"A": "1", "B": "two words", "C": "3"}),
        ('A="a\\tb \\$x $$y" # z\n', {"A": "a\tb $x $y"}),
        ("A=a#b\nB=#c\nC=\n", {"A": "a#b", "B": "", "C": ""}),
    ],
)
def test_files_written_by_hand(text: str, values: dict[str, str]) -> None:
    assert dotenv.parse(text) == values


@pytest.mark.parametrize("text", ["A\n", "A='x\n", 'A="x\n', "A='x'y\n", "A=$B\n", 'A="${B}"\n', "=x\n"])
def test_what_cannot_be_read_is_an_error_that_shows_no_value(text: str) -> None:
    with pytest.raises(dotenv.DotenvError) as refused:
        dotenv.parse(text)
    assert "x" not in str(refused.value).replace("text", "").replace("expected", "")
