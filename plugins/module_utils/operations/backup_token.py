# SPDX-License-Identifier: Apache-2.0
"""An access token: of the machine's own service account by the metadata server, or of a service account's key."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from typing import Any

from ansible_collections.dataops.dagster_gce.plugins.module_utils.operations import jobs

SCOPE = "https://www.googleapis.com/auth/devstorage.read_write"
TIMEOUT = 10
ATTEMPTS = 4


def get(key_file: str = "") -> str:
    """A token that may read and write objects.

    Raises:
        jobs.JobError: there is none to be had, and why.
    """
    return of_key(key_file) if key_file else of_machine()


def of_machine() -> str:
    """A token of the service account that is attached to the machine."""
    host = os.environ.get("GCE_METADATA_HOST") or "metadata.google.internal"
    url = f"http://{host}/computeMetadata/v1/instance/service-accounts/default/token"
    request = urllib.request.Request(url, headers={"Metadata-Flavor": "Google"})
    # Never through a proxy: the address belongs to this machine alone.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    reason = ""
    for attempt in range(ATTEMPTS):
        time.sleep(attempt)
        try:
            with opener.open(request, timeout=TIMEOUT) as answer:
                return str(json.load(answer)["access_token"])
        except urllib.error.HTTPError as error:
            if error.code == 404:
                raise jobs.JobError(
                    "this machine has no service account; attach one that has roles/storage.objectUser on the bucket"
                ) from error
            reason = f"HTTP {error.code}"
        except (OSError, ValueError, KeyError) as error:
            reason = str(getattr(error, "reason", error))
    raise jobs.JobError(
        f"the metadata server {host} does not answer ({reason}); expected a machine on Compute Engine. Elsewhere a "
        "service account's key does: dagster_backup_key_file"
    )


def of_key(path: str) -> str:
    """A token for a key, by a signed assertion (RFC 7523); openssl signs, since Python's library cannot."""
    try:
        with open(path, encoding="utf-8") as stream:
            key: dict[str, Any] = json.load(stream)
        email, private, uri = key["client_email"], key["private_key"], key["token_uri"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise jobs.JobError(
            f"dagster_backup_key_file: {path} is no service account's key ({error}); expected its JSON file"
        ) from error
    now = int(time.time())
    header = {"alg": "RS256", "typ": "JWT", "kid": key.get("private_key_id", "")}
    claims = {"iss": email, "scope": SCOPE, "aud": uri, "iat": now, "exp": now + 3600}
    text = ".".join(_encoded(json.dumps(part).encode()) for part in (header, claims))
    body = urllib.parse.urlencode(
        {
            "grant_type": "urn:ietf:params:oauth:grant-type:jwt-bearer",
            "assertion": f"{text}.{_encoded(_sign(text.encode(), private))}",
        }
    ).encode()
    reason = ""
    for attempt in range(ATTEMPTS):
        time.sleep(attempt)
        try:
            with urllib.request.urlopen(urllib.request.Request(uri, data=body), timeout=TIMEOUT) as answer:
                return str(json.load(answer)["access_token"])
        except urllib.error.HTTPError as error:
            said = error.read().decode("utf-8", "replace")[:300]
            if error.code < 500:
                raise jobs.JobError(f"Google takes the key of {email} for no login ({error.code}): {said}") from error
            reason = f"HTTP {error.code}"
        except (OSError, ValueError, KeyError) as error:
            reason = str(getattr(error, "reason", error))
    raise jobs.JobError(f"{uri} gave no token for {email} ({reason})")


def _encoded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _sign(text: bytes, private: str) -> bytes:
    """RS256. The key goes through a pipe: it is neither an argument nor a file of ours."""
    receiving, sending = os.pipe()
    try:
        os.write(sending, private.encode())
        os.close(sending)
        done = subprocess.run(
            ["openssl", "dgst", "-sha256", "-sign", f"/dev/fd/{receiving}"],
            input=text, capture_output=True, pass_fds=[receiving], check=False, timeout=30,
        )  # fmt: skip
    except FileNotFoundError as error:
        raise jobs.JobError(
            "openssl is not installed, and signs with the key; run `apt-get install openssl`"
        ) from error
    finally:
        os.close(receiving)
    if done.returncode:
        raise jobs.JobError("dagster_backup_key_file: openssl cannot sign with the key: its private_key is none")
    return done.stdout
