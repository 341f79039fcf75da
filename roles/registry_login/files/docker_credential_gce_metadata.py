#!/usr/bin/python3 -I
# SPDX-License-Identifier: Apache-2.0
"""Docker credential helper for Artifact Registry, with the identity that the machine has anyway.

Docker runs it as ``docker-credential-gce-metadata get`` and writes the registry's host to its standard input
(protocol: https://docs.docker.com/reference/cli/docker/login/#credential-helper-protocol). Nothing is ever stored:

- ``attached``: the metadata server makes a token of the machine's service account, good for an hour at most;
- ``key``: the service account's key is read from its file at that moment.

Only the hosts in SETTINGS get a credential: a token of Google's is worth something to whoever runs another registry.
"""

from __future__ import annotations

import json
import os
import sys
import time
import urllib.error
import urllib.request
from typing import Any

SETTINGS = "/etc/docker/credential-gce-metadata.json"
# What Docker takes for "go on without a login".
NOT_FOUND = "credentials not found in native keychain"
ATTEMPTS = 3
TIMEOUT_SECONDS = 5
# Each of them may read images; a machine that Google's console makes has devstorage.read_only.
GOOD_SCOPES = frozenset(
    f"https://www.googleapis.com/auth/{name}"
    for name in (
        "cloud-platform",
        "cloud-platform.read-only",
        "devstorage.read_only",
        "devstorage.read_write",
        "devstorage.full_control",
    )
)


class HelperError(Exception):
    """No credential, and why."""


def host_of(server: str) -> str:
    """``https://europe-west1-docker.pkg.dev/v2/`` is ``europe-west1-docker.pkg.dev``."""
    return server.strip().partition("://")[2].partition("/")[0] or server.strip().partition("/")[0]


def metadata(path: str) -> Any:
    """What the metadata server holds under the service account ``default``; None where it has no such thing."""
    root = os.environ.get("GCE_METADATA_HOST") or "metadata.google.internal"
    url = f"http://{root}/computeMetadata/v1/instance/service-accounts/default/{path}"
    request = urllib.request.Request(url, headers={"Metadata-Flavor": "Google"})
    # Never through a proxy: the address belongs to this machine alone.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    reason = ""
    for attempt in range(ATTEMPTS):
        time.sleep(attempt / 2)
        try:
            with opener.open(request, timeout=TIMEOUT_SECONDS) as answer:
                if answer.headers.get("Metadata-Flavor") != "Google":
                    raise HelperError(f"{root} answers, but is not Compute Engine's metadata server")
                return json.load(answer)
        except urllib.error.HTTPError as error:
            if error.code == 404:
                return None
            reason = f"HTTP {error.code}"
        except (OSError, ValueError) as error:
            reason = str(getattr(error, "reason", error))
    raise HelperError(
        f"the metadata server {root} does not answer ({reason}); expected a machine on Compute Engine. Elsewhere the "
        "service account's key does: dagster_service_account_mode: key"
    )


def token() -> str:
    """An access token of the machine's own service account."""
    account = metadata("?recursive=true")
    if not account:
        raise HelperError("this machine has no service account; attach one that has roles/artifactregistry.reader")
    scopes = account.get("scopes") or []
    if not GOOD_SCOPES.intersection(scopes):
        found = ", ".join(scope.rpartition("/")[2] for scope in scopes) or "none"
        raise HelperError(
            f"the access scopes of this machine ({found}) allow no reading of images; expected cloud-platform. It is "
            f"set while the machine is stopped: gcloud compute instances set-service-account … --scopes=cloud-platform"
        )
    answer = metadata("token")
    if not answer or not answer.get("access_token"):
        raise HelperError(f"the metadata server gave no token for {account.get('email', 'the service account')}")
    return str(answer["access_token"])


def key(path: str) -> str:
    """The service account's key, as it is."""
    try:
        with open(path, encoding="utf-8") as stream:
            content = stream.read()
    except OSError as error:
        raise HelperError(f"cannot read the service account's key {path}: {error.strerror}") from None
    try:
        good = json.loads(content).get("type") == "service_account"
    except (ValueError, AttributeError):
        good = False
    if not good:
        raise HelperError(f"{path} is not the key of a service account")
    return content


def get(server: str, settings: dict[str, Any]) -> dict[str, str]:
    """The credential for a registry, in the words of Docker's protocol."""
    if host_of(server) not in settings["hosts"]:
        raise HelperError(NOT_FOUND)
    if settings["mode"] == "key":
        return {"ServerURL": server, "Username": "_json_key", "Secret": key(settings["key_file"])}
    return {"ServerURL": server, "Username": "oauth2accesstoken", "Secret": token()}


def main(arguments: list[str]) -> int:
    """Do what Docker asks for; errors go to its user (standard error) and to Docker itself (standard output)."""
    action = arguments[0] if len(arguments) == 1 else ""
    if action in ("store", "erase"):
        sys.stdin.read()
        return 0
    try:
        with open(SETTINGS, encoding="utf-8") as stream:
            settings = json.load(stream)
        if action == "get":
            print(json.dumps(get(sys.stdin.read().strip(), settings)))
        elif action == "list":
            user = "_json_key" if settings["mode"] == "key" else "oauth2accesstoken"
            print(json.dumps(dict.fromkeys(settings["hosts"], user)))
        else:
            raise HelperError("expected one argument: get, store, erase or list")
    except HelperError as error:
        print(error)
        if str(error) != NOT_FOUND:
            print(f"docker-credential-gce-metadata: {error}", file=sys.stderr)
        return 1
    except (OSError, ValueError, KeyError) as error:
        print(f"docker-credential-gce-metadata: cannot use {SETTINGS}: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
