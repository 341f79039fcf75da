"""A stand-in for Google's API, held to Google's own discovery documents; see :mod:`lab.google.server`."""

from .errors import Refusal
from .server import Google

__all__ = ["Google", "Refusal"]
