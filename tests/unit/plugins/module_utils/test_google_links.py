"""Names, paths and URLs that mean the same."""

from __future__ import annotations

import pytest

from ansible_collections.dataops.dagster_gce.plugins.module_utils import google_links
from ansible_collections.dataops.dagster_gce.plugins.module_utils.google_links import Place

PLACE = Place("p", "europe-west3-c")
DISK = "projects/p/zones/europe-west3-c/disks/data"


@pytest.mark.parametrize(
    "value",
    [
        "data",
        DISK,
        f"https://www.googleapis.com/compute/v1/{DISK}",
        f"https://compute.googleapis.com/compute/v1/{DISK}",
        f"https://compute-psc.p.googleapis.com/compute/v1/{DISK}",
    ],
)
def test_one_thing_has_one_path(value: str) -> None:
    assert PLACE.zonal("disks", value) == DISK


def test_another_project_stays_another_project() -> None:
    assert (
        PLACE.regional("subnetworks", "projects/host/regions/r/subnetworks/s")
        == "projects/host/regions/r/subnetworks/s"
    )
    assert PLACE.regional("subnetworks", "s") == "projects/p/regions/europe-west3/subnetworks/s"
    assert PLACE.everywhere("networks", "n") == "projects/p/global/networks/n"


@pytest.mark.parametrize(
    ("value", "path"),
    [
        ("debian-cloud/debian-13", "projects/debian-cloud/global/images/family/debian-13"),
        ("example.com:p/family", "projects/example.com:p/global/images/family/family"),
        ("projects/p/global/images/i", "projects/p/global/images/i"),
        ("https://www.googleapis.com/compute/v1/projects/p/global/images/i", "projects/p/global/images/i"),
    ],
)
def test_images(value: str, path: str) -> None:
    assert google_links.image_path(value) == path


@pytest.mark.parametrize(
    ("labels", "ours"),
    [
        (None, False),
        ({}, False),
        ({"managed-by": "terraform"}, False),
        ({"managed-by": "dataops-dagster-gce", "a": "b"}, True),
    ],
)
def test_whose_it_is(labels: dict[str, str] | None, ours: bool) -> None:
    assert google_links.is_ours(labels) is ours
