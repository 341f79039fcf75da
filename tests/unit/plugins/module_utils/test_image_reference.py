"""References of images, taken apart."""

from __future__ import annotations

import pytest

from ansible_collections.dataops.dagster_gce.plugins.module_utils.image_reference import (
    problem,
    split_reference,
    valid_name,
)

DIGEST = "sha256:" + "0" * 64


@pytest.mark.parametrize(
    ("text", "parts", "registry"),
    [
        ("postgres:17", ("postgres", "17", ""), "docker.io"),
        ("team/app:1.2", ("team/app", "1.2", ""), "docker.io"),
        ("localhost/app:1", ("localhost/app", "1", ""), "localhost"),
        ("registry.lab:5000/a/b:c", ("registry.lab:5000/a/b", "c", ""), "registry.lab:5000"),
        (f"eu.example.com/p/r/app@{DIGEST}", ("eu.example.com/p/r/app", "", DIGEST), "eu.example.com"),
        (f"app:latest@{DIGEST}", ("app", "latest", DIGEST), "docker.io"),
    ],
)
def test_good_references(text: str, parts: tuple[str, str, str], registry: str) -> None:
    found = split_reference(text)
    assert problem(text) is None
    assert (found.repository, found.tag, found.digest) == parts
    assert found.registry == registry


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("postgres", "no tag"),
        ("registry.lab:5000/postgres", "no tag"),
        ("postgres:latest", "the tag latest"),
        ("Postgres:1", "expected an image reference"),
        ("a b:1", "expected an image reference"),
        ("app@sha256:12", "expected an image reference"),
        ("app@sha512:" + "0" * 128, "expected an image reference"),
        ("app@sha256:" + "A" * 64, "expected an image reference"),
        ("", "expected an image reference"),
        ("app:1\n", "expected an image reference"),
    ],
)
def test_bad_references(text: str, words: str) -> None:
    # What the inputs' check lets through, the module has to take, and the other way round.
    assert problem(text)
    with pytest.raises(ValueError, match=words):
        split_reference(text)


def test_names() -> None:
    assert valid_name("docker_dagster_core")
    assert not any(valid_name(each) for each in ("", "A", "a:1", "a/", "-a", "a\n"))
