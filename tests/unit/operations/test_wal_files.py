"""Names of the WAL's files: what belongs together, what is missing, what nobody needs any more."""

from __future__ import annotations

import pytest

from ansible_collections.dataops.dagster_gce.plugins.module_utils.operations import wal_files

SYSTEM = "7578123456789012345"
SIZE = 16 << 20
SHA = "0123456789abcdef" * 4


def segment(number: int, timeline: int = 1) -> str:
    return f"{timeline:08X}{number // 256:08X}{number % 256:08X}"


def name(number: int, until: str = "", system: str = SYSTEM, suffix: str = "") -> str:
    return wal_files.name_of(system, segment(number), until, SHA, suffix)


def listing(*names: str) -> dict[str, int]:
    return dict.fromkeys(names, 1)


@pytest.mark.parametrize("until", ["", "20261130T120000Z"])
@pytest.mark.parametrize("suffix", ["", ".age"])
def test_a_name_says_what_is_in_it(until: str, suffix: str) -> None:
    text = name(3, until, suffix=suffix)
    found = wal_files.parse(text, 9)
    assert found == wal_files.Piece(text, 9, SYSTEM, segment(3), until, SHA)
    assert found.path == f"wal/{text}"


@pytest.mark.parametrize(
    "text", ["", "new", segment(3), f"{SYSTEM}-{segment(3)}.gz", name(3) + ".new", f"../{name(3)}"]
)
def test_other_names_are_none(text: str) -> None:
    assert wal_files.parse(text) is None


def test_the_next_segment() -> None:
    assert wal_files.following(segment(3), SIZE) == segment(4)
    assert wal_files.following(segment(255), SIZE) == segment(256)
    # 64 MB: 64 of them make four gigabytes.
    assert wal_files.following("00000002000000010000003F", 64 << 20) == "000000020000000200000000"


def test_a_position_at_a_border_is_the_end_of_the_segment_before() -> None:
    lsn = wal_files.lsn_of("0/3000148")
    assert lsn == 0x3000148
    assert wal_files.segment_of(lsn, 1, SIZE) == segment(3)
    assert wal_files.segment_of(wal_files.lsn_of("0/4000000"), 1, SIZE) == segment(3)
    assert wal_files.segment_of(wal_files.lsn_of("0/4000001"), 1, SIZE) == segment(4)
    assert wal_files.segment_of(wal_files.lsn_of("1/0"), 1, SIZE) == segment(255)


def test_a_chain_ends_where_something_is_missing() -> None:
    names = listing(name(1), name(2), name(4), name(5, "20261130T120000Z"), name(5, "20261130T115930Z"))
    archive = wal_files.archives(names)[SYSTEM]
    newest = archive.newest
    assert newest
    assert newest.until == "20261130T120000Z"
    assert [each.segment for each in archive.chain(segment(1), segment(5), SIZE)] == [segment(1), segment(2)]
    found = archive.chain(segment(4), segment(5), SIZE)
    assert [each.name for each in found] == [name(4), newest.name]
    assert archive.chain(segment(3), segment(5), SIZE) == []


def test_a_whole_segment_is_better_than_its_mark() -> None:
    archive = wal_files.archives(listing(name(5, "20261130T120000Z"), name(5)))[SYSTEM]
    assert [each.name for each in archive.chain(segment(5), segment(5), SIZE)] == [name(5)]


def test_what_is_older_than_the_base_goes_and_what_a_newer_mark_has() -> None:
    old, new = name(5, "20261130T115930Z"), name(5, "20261130T120000Z")
    other = name(1, system="99")
    names = listing(name(1), name(2), old, new, other, "what somebody has put here")
    assert wal_files.unneeded(names, {SYSTEM: segment(2)}) == [name(1), old]
    assert wal_files.unneeded(names, {}) == [old]
    everything = sorted([name(1), name(2), old, new, other])
    assert sorted(wal_files.unneeded(names, {SYSTEM: segment(9)}, ["99"])) == everything
