"""The user code: what the code location `dagster_core` serves.

Kept thin and free of relative imports on purpose: the image starts it with `-m dagster_core`, and the article's
`-f …/dagster_core/__init__.py` works too (docs/images.md says what differs).
"""

from dagster_core.definitions import defs

__all__ = ["defs"]
