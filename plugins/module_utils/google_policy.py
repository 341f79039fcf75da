# SPDX-License-Identifier: Apache-2.0
"""IAM policies: who holds which role on a thing. Pure data; :mod:`gcp_iam_member` reads and writes them.

A policy is read and written as a whole, so everything in it that is not asked for has to come back as it was: other
bindings, members that were deleted since, audit settings, the etag.
https://cloud.google.com/iam/docs/reference/rest/v1/Policy
"""

from __future__ import annotations

import copy
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

# The version in which bindings may have conditions. Asked for always: an older one hides the conditions, and a policy
# that is written without them would lose them.
VERSION = 3

ROLE = re.compile(r"roles/[A-Za-z0-9_.]+|(?:projects|organizations)/[^/\s]+/roles/[A-Za-z0-9_.]+")
MEMBER = re.compile(
    r"allUsers|allAuthenticatedUsers|(?:user|serviceAccount|group):[^\s:@]+@[^\s:@]+|domain:[^\s:@]+\.[^\s:@]+"
    r"|project(?:Owner|Editor|Viewer):[^\s]+|principal(?:Set)?://[^\s]+|serviceAccount:[^\s]+\.svc\.id\.goog\[[^\s]+\]"
)


@dataclass(frozen=True)
class Grant:
    """One member who holds one role, on a condition perhaps (its title, expression and description)."""

    role: str
    member: str
    condition: tuple[str, str, str] | None = None

    def __str__(self) -> str:
        """A line of a diff."""
        return f"{self.role} {self.member}" + (
            f" if {self.condition[0]} ({self.condition[1]})" if self.condition else ""
        )


def condition_of(given: Mapping[str, Any] | None) -> tuple[str, str, str] | None:
    """A condition as it compares; None for none."""
    if not given:
        return None
    return (given.get("title") or "", given.get("expression") or "", given.get("description") or "")


def grants(roles: Iterable[str], members: Iterable[str], condition: Mapping[str, Any] | None) -> list[Grant]:
    """Each of the roles for each of the members."""
    wanted = condition_of(condition)
    return [Grant(role, member, wanted) for role in dict.fromkeys(roles) for member in dict.fromkeys(members)]


def _same_member(left: str, right: str) -> bool:
    # Google keeps the spelling of an address; who it is does not depend on it. Principals are URLs, with case.
    return left == right or ("://" not in left and left.casefold() == right.casefold())


def _belongs(binding: Mapping[str, Any], grant: Grant) -> bool:
    return binding.get("role") == grant.role and condition_of(binding.get("condition")) == grant.condition


def holds(policy: Mapping[str, Any], grant: Grant) -> bool:
    """Whether the policy gives it."""
    return any(
        _same_member(member, grant.member)
        for binding in policy.get("bindings") or []
        if _belongs(binding, grant)
        for member in binding.get("members") or []
    )


def with_grants(policy: Mapping[str, Any], wanted: Iterable[Grant]) -> dict[str, Any]:
    """The policy with these grants; all else as it is."""
    changed = copy.deepcopy(dict(policy))
    bindings: list[dict[str, Any]] = changed.setdefault("bindings", [])
    for grant in wanted:
        if holds(changed, grant):
            continue
        binding = next((each for each in bindings if _belongs(each, grant)), None)
        if binding is None:
            binding = {"role": grant.role, "members": []}
            if grant.condition:
                title, expression, description = grant.condition
                binding["condition"] = {"title": title, "expression": expression}
                if description:
                    binding["condition"]["description"] = description
            bindings.append(binding)
        binding.setdefault("members", []).append(grant.member)
    changed["version"] = VERSION
    return changed


def without_grants(policy: Mapping[str, Any], unwanted: Iterable[Grant]) -> dict[str, Any]:
    """The policy without these grants; a binding that nobody is left in goes too."""
    changed = copy.deepcopy(dict(policy))
    for grant in unwanted:
        for binding in changed.get("bindings") or []:
            if _belongs(binding, grant):
                binding["members"] = [each for each in binding["members"] if not _same_member(each, grant.member)]
    changed["bindings"] = [each for each in changed.get("bindings") or [] if each.get("members")]
    changed["version"] = VERSION
    return changed
