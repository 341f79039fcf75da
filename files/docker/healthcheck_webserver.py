"""Health check of dagster-webserver: GET /server_info answers 200 with a version.

Usage: python healthcheck_webserver.py [--url http://localhost:3000/server_info] [--timeout 5]
Exit status: 0 healthy, 1 not; the reason is on stdout, where `docker inspect` shows it.
"""

import argparse
import json
import sys
import urllib.error
import urllib.request


def check(url: str, timeout: float) -> str:
    """Return what is wrong, or an empty text."""
    # No proxy, whatever the environment says: the server is in this container.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(url, timeout=timeout) as answer:
            body = answer.read(65536)
    except urllib.error.HTTPError as error:
        return f"{url}: expected HTTP 200, found {error.code}"
    except (OSError, ValueError) as error:
        return f"{url}: expected an answer within {timeout:g} s, found {getattr(error, 'reason', error)}"
    try:
        version = json.loads(body)["dagster_webserver_version"]
    except (ValueError, KeyError, TypeError):
        return f"{url}: expected JSON with dagster_webserver_version, found {body[:200]!r}"
    print(f"healthy: dagster-webserver {version}")
    return ""


def main() -> int:
    """Run the check and report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", default="http://localhost:3000/server_info")
    parser.add_argument("--timeout", type=float, default=5.0, help="seconds")
    arguments = parser.parse_args()
    problem = check(arguments.url, arguments.timeout)
    if problem:
        print(f"unhealthy: {problem}")
    return 1 if problem else 0


if __name__ == "__main__":
    sys.exit(main())
