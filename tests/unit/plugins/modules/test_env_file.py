"""env_file: secrets survive, nothing shows them, and a database is never locked out."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.dataops.dagster_gce.plugins.module_utils import dotenv
from ansible_collections.dataops.dagster_gce.plugins.modules import env_file

RunModule = Callable[..., dict[str, Any]]
CANARY = "c4n4ry-$#'\" \\-é"
OWNER = {"owner": os.getuid(), "group": os.getgid()}


@pytest.fixture
def write(run_module: RunModule, tmp_path: Path) -> RunModule:
    """Run the module on tmp_path/home/.env with a generated password."""

    def run(secrets: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
        arguments = {
            "path": str(tmp_path / "home/.env"),
            "values": {"POSTGRES_USER": "dagster"},
            "secrets": secrets or {},
            "generate": [{"name": "POSTGRES_PASSWORD"}],
            **OWNER,
        }
        return run_module(env_file.main, **{**arguments, **more})

    return run


@pytest.fixture
def content(tmp_path: Path) -> Callable[[], dict[str, str]]:
    """What the file holds."""
    return lambda: dotenv.parse((tmp_path / "home/.env").read_text(encoding="utf-8"))


def test_a_generated_secret_survives(write: RunModule, content: Callable[[], dict[str, str]], tmp_path: Path) -> None:
    first = write()
    password = content()["POSTGRES_PASSWORD"]
    assert (first["changed"], first["generated"], len(password)) == (True, ["POSTGRES_PASSWORD"], 40)
    assert stat.S_IMODE((tmp_path / "home/.env").stat().st_mode) == 0o600
    second = write()
    assert (second["changed"], second["generated"]) == (False, [])
    third = write(values={"POSTGRES_USER": "dagster", "GCP_PROJECT": "p"})
    assert (third["changed"], third["changed_names"]) == (True, ["GCP_PROJECT"])
    assert content() == {"POSTGRES_USER": "dagster", "GCP_PROJECT": "p", "POSTGRES_PASSWORD": password}
    for result in (first, second, third):
        assert password not in result["text"]


def test_two_machines_get_two_secrets(run_module: RunModule, tmp_path: Path) -> None:
    made = set()
    for name in ("a", "b"):
        path = tmp_path / name
        run_module(env_file.main, path=str(path), generate=[{"name": "S", "length": 16}], **OWNER)
        made.add(path.read_text(encoding="utf-8"))
    assert len(made) == 2


def test_a_given_secret_wins_and_is_not_shown(write: RunModule, content: Callable[[], dict[str, str]]) -> None:
    write()
    before = content()["POSTGRES_PASSWORD"]
    result = write({"POSTGRES_PASSWORD": CANARY})
    assert content()["POSTGRES_PASSWORD"] == CANARY
    assert (result["changed"], result["changed_names"]) == (True, ["POSTGRES_PASSWORD"])
    assert "POSTGRES_PASSWORD=(changed, hidden)" in result["diff"]["after"]
    again = write({"POSTGRES_PASSWORD": CANARY})
    assert again["changed"] is False
    assert write()["changed"] is False, "left out again, the given one stays"
    for text in (result["text"], again["text"]):
        assert "c4n4ry" not in text
        assert before not in text


def test_check_mode_writes_nothing(write: RunModule, tmp_path: Path) -> None:
    result = write(check=True)
    assert result["changed"] is True
    assert not (tmp_path / "home").exists()


def test_a_wrong_mode_is_put_right(write: RunModule, tmp_path: Path) -> None:
    write()
    (tmp_path / "home/.env").chmod(0o644)
    assert write(check=True)["changed"] is True
    assert write()["changed"] is True
    assert stat.S_IMODE((tmp_path / "home/.env").stat().st_mode) == 0o600
    assert write()["changed"] is False


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"secrets": {"POSTGRES_PASSWORD": "c4n4ry\nx"}}, "POSTGRES_PASSWORD: found a text with a line end"),
        ({"values": {"A": 83}}, "A: found a int; expected a text"),
        ({"values": {"A-B": "x"}}, "A-B: no name"),
        ({"mode": "rw"}, "mode: found 'rw'"),
        ({"generate": [{"name": "S", "length": 4}]}, "generate: S: found a length of 4"),
    ],
)
def test_bad_input_names_the_variable_and_shows_no_value(
    write: RunModule, tmp_path: Path, more: dict[str, Any], words: str
) -> None:
    result = write(**more)
    assert result["failed"] is True
    assert result["msg"].startswith(words)
    assert "c4n4ry" not in result["text"]
    assert not (tmp_path / "home").exists()


def test_a_file_that_cannot_be_read_is_left_alone(write: RunModule, tmp_path: Path) -> None:
    (tmp_path / "home").mkdir()
    (tmp_path / "home/.env").write_text("A='c4n4ry\n", encoding="utf-8")
    result = write()
    assert "A: found an opening quote that is never closed" in result["msg"]
    assert "c4n4ry" not in result["text"]
    assert (tmp_path / "home/.env").read_text(encoding="utf-8") == "A='c4n4ry\n"


class TestAnExistingDatabase:
    """The volume of a real engine: what it was made with counts, whatever the file says."""

    @staticmethod
    def initial(volume: str) -> dict[str, Any]:
        names = {"POSTGRES_USER": "dagster_postgres_user", "POSTGRES_PASSWORD": "dagster_postgres_password"}
        return {"volume": volume, "names": names}

    def test_another_password_is_refused(
        self, write: RunModule, content: Callable[[], dict[str, str]], volume: str
    ) -> None:
        write()
        before = content()
        result = write({"POSTGRES_PASSWORD": "c4n4ry"}, initial=self.initial(volume))
        assert result["failed"] is True
        assert result["msg"].startswith("dagster_postgres_password: differs from POSTGRES_PASSWORD")
        assert "c4n4ry" not in result["text"]
        assert content() == before
        assert write(check=True, secrets={"POSTGRES_PASSWORD": "x" * 8}, initial=self.initial(volume))["failed"] is True

    def test_another_user_is_refused(self, write: RunModule, volume: str) -> None:
        write()
        result = write(values={"POSTGRES_USER": "other"}, initial=self.initial(volume))
        assert result["msg"].startswith("dagster_postgres_user: differs from POSTGRES_USER")

    def test_the_same_password_and_other_changes_are_fine(
        self, write: RunModule, content: Callable[[], dict[str, str]], volume: str
    ) -> None:
        write()
        secrets = {"POSTGRES_PASSWORD": content()["POSTGRES_PASSWORD"], "MORE": "x"}
        result = write(secrets, initial=self.initial(volume))
        assert (result["failed"], result["changed_names"]) == (False, ["MORE"])

    def test_a_lost_file_is_no_reason_for_a_new_password(self, write: RunModule, tmp_path: Path, volume: str) -> None:
        result = write(initial=self.initial(volume))
        assert "is missing, but the database's volume" in result["msg"]
        assert not (tmp_path / "home").exists()
        assert write({"POSTGRES_PASSWORD": "known"}, initial=self.initial(volume))["failed"] is False

    @pytest.mark.usefixtures("docker")
    def test_before_there_is_a_database_everything_may_change(self, write: RunModule) -> None:
        write()
        result = write({"POSTGRES_PASSWORD": "another one"}, initial=self.initial("no-such-volume"))
        assert result["changed"] is True


class TestPasswordFiles:
    """The folder from which containers take the database's password."""

    @pytest.fixture
    def folder(self, tmp_path: Path) -> Path:
        """The folder that the containers mount."""
        return tmp_path / "database"

    @pytest.fixture
    def export(self, folder: Path) -> dict[str, Any]:
        """The option."""
        return {"name": "POSTGRES_PASSWORD", "folder": str(folder), "uid": os.getuid()}

    def test_they_follow_the_value(self, write: RunModule, folder: Path, export: dict[str, Any]) -> None:
        assert write({"POSTGRES_PASSWORD": CANARY}, check=True, password_files=export)["changed"] is True
        assert not folder.exists()
        result = write({"POSTGRES_PASSWORD": CANARY}, password_files=export)
        assert (result["changed"], "c4n4ry" in result["text"]) == (True, False)
        assert (folder / "password").read_text() == CANARY
        assert (folder / "pgpass").read_text() == "*:*:*:*:" + CANARY.replace("\\", "\\\\") + "\n"
        modes = [stat.S_IMODE(path.stat().st_mode) for path in (folder, folder / "password", folder / "pgpass")]
        assert modes == [0o750, 0o440, 0o400]
        assert write({"POSTGRES_PASSWORD": CANARY}, password_files=export)["changed"] is False

    def test_one_that_was_lost_or_opened_comes_back(
        self, write: RunModule, folder: Path, export: dict[str, Any]
    ) -> None:
        write({"POSTGRES_PASSWORD": "a:b"}, password_files=export)
        (folder / "password").unlink()
        (folder / "pgpass").chmod(0o644)
        result = write({"POSTGRES_PASSWORD": "a:b"}, password_files=export)
        assert (result["changed"], result["changed_names"]) == (True, [])
        assert (folder / "password").read_text() == "a:b"
        assert (folder / "pgpass").read_text() == "*:*:*:*:a\\:b\n"
        assert stat.S_IMODE((folder / "pgpass").stat().st_mode) == 0o400
