"""What is kept when the process ends."""

from __future__ import annotations

from pathlib import Path

from lab.google import Google

P = {"project": "example-project"}


def test_everything_is_there_after_a_restart(tmp_path: Path) -> None:
    first = Google(state_dir=tmp_path).start()
    first.seed_project("example-project")
    first.call("compute.networks.insert", P, {"name": "n", "autoCreateSubnetworks": False})
    key = first.service_account_key("worker@example-project.iam.gserviceaccount.com")
    certificate = first.authority.read_text()
    first.stop()
    second = Google(state_dir=tmp_path).start()
    try:
        assert [network["name"] for network in second.call("compute.networks.list", P)["items"]] == ["n"]
        assert key["private_key_id"] in second.state.note("keys")
        assert second.authority.read_text() == certificate
    finally:
        second.stop()


def test_a_temporary_one_leaves_nothing() -> None:
    google = Google().start()
    folder = google.folder
    assert (folder / "ca.pem").exists()
    google.stop()
    assert not folder.exists()


def test_the_private_key_and_the_state_are_for_the_owner_only(tmp_path: Path) -> None:
    google = Google(state_dir=tmp_path).start()
    google.seed_project("example-project")
    google.stop()
    for name in ("server.pem", "state.json", "credentials.json"):
        assert (tmp_path / name).stat().st_mode & 0o077 == 0, name
