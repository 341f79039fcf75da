"""A metadata server and a registry that wants its token (or a key), for the machine of the scenario."""

from __future__ import annotations

import sys
import threading

import metadata_server
import small_registry

if __name__ == "__main__":
    with (
        metadata_server.serving(80) as metadata,
        small_registry.serving(5000) as by_token,
        small_registry.serving(5001) as by_key,
    ):
        by_token.user = f"oauth2accesstoken:{metadata.token}"
        by_token.add("team/core:1", "by token")
        by_key.user = f"_json_key:{sys.argv[1]}"
        by_key.add("team/core:1", "by key")
        threading.Event().wait()
