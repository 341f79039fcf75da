"""The hash of an image's files, the tar, and what never goes into it."""

from __future__ import annotations

import io
import os
import tarfile
from pathlib import Path

import pytest

from ansible_collections.dataops.dagster_gce.plugins.module_utils.build_context import Context, ContextError, scan

KEY = "-----BEGIN " + "PRIVATE KEY-----\nMIIE\n"


@pytest.fixture
def source(tmp_path: Path) -> Path:
    for path, text in {
        "Dockerfile": "FROM x\n",
        "app/a.py": "print(1)\n",
        "app/sub/b.py": "",
        "app/__pycache__/a.cpython-313.pyc": "x",
        "app/.git/config": "x",
        "lock.txt": "dagster==1\n",
    }.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text, encoding="utf-8")
    return tmp_path


def paths(context: Context) -> list[str]:
    return [each.path for each in context.entries]


def test_what_is_included(source: Path) -> None:
    assert paths(scan(source, ["app", "lock.txt"], "Dockerfile")) == [
        "Dockerfile",
        "app/a.py",
        "app/sub/b.py",
        "lock.txt",
    ]
    assert paths(scan(source, ["app/**/*.py"], "Dockerfile")) == ["Dockerfile", "app/a.py", "app/sub/b.py"]
    assert paths(scan(source, ["app"], "Dockerfile", exclude=["app/sub"])) == ["Dockerfile", "app/a.py"]


def test_the_hash_is_blind_to_what_the_build_does_not_see(source: Path) -> None:
    before = scan(source, ["app"], "Dockerfile").content_hash
    os.utime(source / "app/a.py", (1, 1))
    (source / "app/a.py").chmod(0o600)
    (source / "app/__pycache__/more.pyc").write_text("y", encoding="utf-8")
    (source / "other").write_text("y", encoding="utf-8")
    (source / "app/empty").mkdir()
    assert scan(source, ["app/sub", "app"], "Dockerfile", {}).content_hash == before


@pytest.mark.parametrize(
    "change", ["content", "executable", "new file", "renamed", "dockerfile", "build argument", "link"]
)
def test_the_hash_sees_everything_else(source: Path, change: str) -> None:
    before = scan(source, ["app"], "Dockerfile", {"V": "1"}).content_hash
    arguments = {"V": "1"}
    match change:
        case "content":
            (source / "app/a.py").write_text("print(2)\n", encoding="utf-8")
        case "executable":
            (source / "app/a.py").chmod(0o755)
        case "new file":
            (source / "app/c.py").write_text("", encoding="utf-8")
        case "renamed":
            (source / "app/a.py").rename(source / "app/z.py")
        case "dockerfile":
            (source / "Dockerfile").write_text("FROM y\n", encoding="utf-8")
        case "build argument":
            arguments = {"V": "2"}
        case "link":
            (source / "app/l").symlink_to("a.py")
    assert scan(source, ["app"], "Dockerfile", arguments).content_hash != before


def test_the_tar_is_the_same_for_the_same_files(source: Path) -> None:
    (source / "app/l").symlink_to("a.py")
    packed = []
    for stamp in (1_000_000_000, 2_000_000_000):
        os.utime(source / "app/a.py", (stamp, stamp))
        target = io.BytesIO()
        scan(source, ["app"], "Dockerfile").write_tar(target)
        packed.append(target.getvalue())
    assert packed[0] == packed[1]
    with tarfile.open(fileobj=io.BytesIO(packed[0])) as tar:
        members = {each.name: each for each in tar.getmembers()}
        assert sorted(members) == ["Dockerfile", "app/a.py", "app/l", "app/sub/b.py"]
        assert (members["app/a.py"].uid, members["app/a.py"].mode, members["app/l"].linkname) == (0, 0o644, "a.py")
        extracted = tar.extractfile("app/a.py")
        assert extracted is not None
        assert extracted.read() == b"print(1)\n"


def test_a_file_that_changes_meanwhile_is_noticed(source: Path) -> None:
    context = scan(source, ["app"], "Dockerfile")
    (source / "app/a.py").write_text("print(2)\n", encoding="utf-8")
    with pytest.raises(ContextError, match=r"app/a\.py: changed while"):
        context.write_tar(io.BytesIO())


@pytest.mark.parametrize(
    ("path", "text"),
    [
        (".env", "A=1"),
        ("app/.env.prod", "A=1"),
        ("app/tls.pem", "x"),
        ("app/service-account.json", "{}"),
        ("app/service-account-prod.json", "{}"),
        ("files/secrets/anything", "x"),
        ("app/deploy_key", KEY),
        ("app/credentials.json", '{"private_key": "' + KEY.replace("\n", "\\n") + '"}'),
    ],
)
def test_secrets_are_refused_whatever_pattern_matches_them(source: Path, path: str, text: str) -> None:
    (source / path).parent.mkdir(parents=True, exist_ok=True)
    (source / path).write_text(text, encoding="utf-8")
    for include in (["**"], [path]):
        with pytest.raises(ContextError, match=r"secret|private key") as refused:
            scan(source, include, "Dockerfile")
        assert str(refused.value).startswith(path)
        assert "MIIE" not in str(refused.value)
    scan(source, ["**"], "Dockerfile", exclude=[path])


@pytest.mark.parametrize(
    ("include", "dockerfile", "words"),
    [
        (["nothing/*"], "Dockerfile", "include: 'nothing/*' matches no file"),
        (["app", ""], "Dockerfile", "include: found ''"),
        (["../x"], "Dockerfile", "include: found '../x'"),
        (["/etc/passwd"], "Dockerfile", "include: found '/etc/passwd'"),
        (["app"], "Nofile", "dockerfile: "),
    ],
)
def test_bad_paths_name_the_option(source: Path, include: list[str], dockerfile: str, words: str) -> None:
    with pytest.raises(ContextError) as refused:
        scan(source, include, dockerfile)
    assert str(refused.value).startswith(words)


def test_links_out_of_the_folder_and_special_files_are_refused(source: Path) -> None:
    (source / "app/out").symlink_to("/etc/passwd")
    with pytest.raises(ContextError, match="outside of"):
        scan(source, ["app"], "Dockerfile")
    (source / "app/out").unlink()
    os.mkfifo(source / "app/pipe")
    with pytest.raises(ContextError, match="neither a file nor a link"):
        scan(source, ["app"], "Dockerfile")
    with pytest.raises(ContextError, match=r"source: .* is no folder"):
        scan(source / "absent", ["app"], "Dockerfile")
