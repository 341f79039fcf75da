"""What is knowingly not met is said, with its reason, and nothing else is left out."""

from __future__ import annotations

import re

from tests.e2e.harness import ROOT
from tests.e2e.operations.audit.exceptions import NOT_MET


def test_each_exception_has_its_reason_in_the_docs() -> None:
    text = (ROOT / "docs" / "security.md").read_text(encoding="utf-8")
    rows = dict(re.findall(r"^\| (N\d+) \| (.+?) \| .{20,} \|$", text, re.MULTILINE))
    assert rows == NOT_MET
