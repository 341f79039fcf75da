"""What an environment has at Google: by its inventory, and added up only where a price is given."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from docs._generate import costs

ROOT = Path(__file__).resolve().parents[3]
HAS: dict[str, Any] = {
    "zone": "europe-west3-c", "machine_type": "e2-standard-2", "spot": False, "boot_disk": ["pd-balanced", 20],
    "data_disk": ["pd-balanced", 50], "snapshot_days": 14, "nat": True, "external_address": "none", "flow_logs": False,
    "repository": "dagster-core-prod", "repository_keep": 20, "bucket": "",
}  # fmt: skip


def test_the_inventory_decides() -> None:
    names = [row.name for row in costs.rows(HAS, costs.USE)]
    assert names == ["machine", "pd-balanced", "pd-balanced", "snapshots", "nat", "address", "nat_gib", "registry"]
    other = {**HAS, "nat": False, "external_address": "static", "snapshot_days": 0, "repository": "", "bucket": "b"}
    assert [row.name for row in costs.rows(other, costs.USE)] == [
        "machine",
        "pd-balanced",
        "pd-balanced",
        "address",
        "bucket",
    ]


def test_the_sum_can_be_followed() -> None:
    found = costs.rows({**HAS, "nat": False, "snapshot_days": 0, "repository": ""}, costs.USE)
    assert (
        costs.total(found, {"machine": 0.1, "pd-balanced": 0.5})
        == "730 × 0.1 + 20 × 0.5 + 50 × 0.5 = 108.00 USD a month"
    )
    assert costs.total(found, {"machine": 0.1}) == "730 × 0.1 = 73.00 USD a month; without a price: pd-balanced"
    assert costs.total(found, {}).startswith("no price is given")


def test_every_price_and_use_of_the_page_is_one() -> None:
    text = (ROOT / "docs/costs.md").read_text(encoding="utf-8")
    for name in costs.USE:
        assert f"| `{name}` |" in text
    with pytest.raises(SystemExit, match="expected NAME=NUMBER"):
        costs.numbers(["machine=cheap"])
