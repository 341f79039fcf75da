"""What the deployment proves itself with."""

import os
import platform
import sys

import dagster as dg

from dagster_core.utils.storage import storage_dir


@dg.op
def check_platform(context: dg.OpExecutionContext) -> None:
    """Say where the run is, and that it may write to the storage folder. Needs no data, no cloud, no config."""
    folder = storage_dir()
    if not os.access(folder, os.W_OK):
        raise dg.Failure(f"{folder} is not writable for user {os.getuid()}: is the volume mounted and owned by it?")
    context.log.info(
        "python %s on %s, image %s",
        sys.version.split()[0],
        platform.node(),
        os.environ.get("DAGSTER_CURRENT_IMAGE", "(unknown)"),
    )
