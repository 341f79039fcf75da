# Copyright (c) 2026, the dataops.dagster_gce authors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""How Compute Engine names things: a name, a path (`projects/…`) or a whole URL, which all mean the same."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

MANAGED_BY = {"managed-by": "dataops-dagster-gce"}
"""The label by which the collection knows what it made."""

NAME = r"[a-z](?:[-a-z0-9]{0,61}[a-z0-9])?"
"""What Google takes as the name of a disk, an instance, a network… (RFC 1035), as its discovery document has it."""

NAME_WORDS = "1 to 63 lower-case letters, digits or hyphens, a letter first, no hyphen last"
"""The same for people."""


@dataclass(frozen=True)
class Place:
    """A project and a zone in it."""

    project: str
    zone: str

    @property
    def region(self) -> str:
        """The zone's region."""
        return self.zone.rsplit("-", 1)[0]

    def zonal(self, collection: str, name: str) -> str:
        """The path of something in the zone; a path or URL is shortened to its path."""
        return self._path(f"zones/{self.zone}/{collection}", name)

    def regional(self, collection: str, name: str) -> str:
        """The path of something in the region."""
        return self._path(f"regions/{self.region}/{collection}", name)

    def everywhere(self, collection: str, name: str) -> str:
        """The path of something that is global."""
        return self._path(f"global/{collection}", name)

    def _path(self, folder: str, name: str) -> str:
        return path(name) if "/" in name else f"projects/{self.project}/{folder}/{name}"


def path(link: str) -> str:
    """A link without host and version: Google answers with several hosts for one thing."""
    found = re.search(r"projects/.*", link)
    return found.group() if found else link


def last(link: str) -> str:
    """The name at a link's end."""
    return link.rsplit("/", 1)[-1]


def image_path(image: str) -> str:
    """An image's path. `project/family` is short for the newest image of a family."""
    if re.fullmatch(r"[a-z][-a-z0-9.:]*/[-a-z0-9]+", image):
        project, family = image.split("/")
        return f"projects/{project}/global/images/family/{family}"
    return path(image)


def is_ours(labels: Mapping[str, str] | None) -> bool:
    """Whether the labels say that the collection made it."""
    return all((labels or {}).get(key) == value for key, value in MANAGED_BY.items())
