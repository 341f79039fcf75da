"""The lab: an engine, base images, a registry and machines on this computer, for ``make demo`` and for the tests.

Nothing here is needed to run Dagster on Google Compute Engine; it stands in for what a laptop does not have.
"""
