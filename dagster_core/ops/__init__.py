"""Ops that are no assets."""
