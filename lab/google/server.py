"""The lab's Google: an HTTPS proxy on 127.0.0.1 that answers for ``*.googleapis.com``, ``*.pkg.dev`` and IAP's tunnel.

Use it in a test (fixture ``google``) or on its own::

    google = Google().start()
    google.seed_project("example-project")          # every API enabled; google.owner owns it
    environment = os.environ | google.environment() # HTTPS_PROXY, REQUESTS_CA_BUNDLE, GOOGLE_APPLICATION_CREDENTIALS…
    google.stop()

What a test can ask it:

``google.calls``
    ids of the methods that were called, in order (``compute.networks.get``; token requests are not among them).
``google.seen``
    the same as a set, which stays complete when a test empties ``calls``.
``google.requests``
    the same with everything: ``.method``, ``.path``, ``.query``, ``.body``, ``.status``, ``.caller``, ``.answer``.
``google.tunnels``
    the tunnels of IAP that were asked for, in order: project, zone, instance, interface and port of each.
``google.violations``
    what no client of ours may do and no answer of ours may be: an unknown or read-only field, a method without a
    handler, a token without the scope, an answer that does not fit the schema. The fixture asserts that it is empty.
    ``google.strict = False`` has read-only fields ignored, as Google does; for gcloud and the like it always is so.
``google.thing("projects/example-project/global/networks/n")``
    the stored resource (``api="compute"``), or None.
``google.call("compute.networks.patch", {"project": …, "network": …}, {"mtu": 1500})``
    a call in this process, without HTTP, as the owner (or ``email=``); waits for compute's operations; raises
    :class:`~lab.google.errors.Refusal`. It is how a test changes something behind a module's back; not in ``calls``.
``google.fail("compute.networks.insert", 503, times=2)``
    the next calls of a method go wrong; see :meth:`Google.fail` for the kinds.
``google.before("compute.disks.setLabels", function)``
    runs a function once, right before the next such call is answered (somebody else is quicker).
``google.token(email=…, scopes=…, seconds=3600)``, ``google.expire_tokens()``
    a bearer token of ours; make all of them worthless.
``google.revoke("compute.networks.create")``, ``google.grant(…)``
    take a permission from the owner (or ``email=``) and give it back.
``google.forbid("compute.vmExternalIpAccess", "example-project")``
    set an organisation policy's constraint.
``google.service_account_key("worker@example-project.iam.gserviceaccount.com")``
    a key file's content that the token endpoint accepts; makes the account (as ``roles/owner``) if it is not there.
``google.federated("example-project", impersonate=…)``
    an external account's configuration (workload identity federation) with a token that works.
``google.operation_polls``, ``google.operation_seconds``
    an operation is DONE after so many looks (1: the first ``wait`` or ``get``) or seconds (2), whichever comes first.
    Until the insert's operation is DONE the thing cannot be used by others (resourceNotReady), as on Google.

How handlers are written stands in :mod:`lab.google.handlers`; what compute's have in common in
:mod:`lab.google.compute.common`.
"""

from __future__ import annotations

import copy
import json
import secrets
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Self

from . import discovery, dispatch, proxy, tls
from .dispatch import Answer, Fault, Request
from .errors import Refusal
from .handlers import Call, Caller, load
from .operations import Operations
from .state import State, Thing

OWNER = "owner@example.com"
DAY = 86400  # seconds
PLATFORM = "https://www.googleapis.com/auth/cloud-platform"
REFRESH_TOKEN = "refresh-token-of-the-owner"  # noqa: S105 - opens nothing but this stand-in


class Google:
    """The stand-in; see the module's docstring.

    :param state_dir: where certificates, credentials and the state live, to be found again; None: a temporary folder.
    :param driver: what ``instances.insert`` starts: ``none``, ``container``.
    :param options: the driver's.
    :param port: 0: any free one.
    """

    def __init__(
        self,
        state_dir: Path | None = None,
        driver: str = "none",
        options: dict[str, Any] | None = None,
        host: str = "127.0.0.1",
        port: int = 0,
    ) -> None:
        self.keep = state_dir is not None
        self.folder = state_dir or Path(tempfile.mkdtemp(prefix="lab-google-"))
        self.state = State(self.folder / "state.json" if state_dir else None)
        self.driver_name = driver
        self.driver_options = options or {}
        self.driver: Any = None
        self.registry = ""
        """The address (host:port) of the registry behind ``*.pkg.dev``; empty: none."""
        self.owner = OWNER
        self.strict = True
        self.calls: list[str] = []
        self.requests: list[Request] = []
        self.violations: list[str] = []
        self.tunnels: list[dict[str, str]] = []
        self.seen: set[str] = set()
        self.operations = Operations(self.state)
        self._faults: dict[str, list[Fault]] = {}
        self._hooks: dict[str, list[Callable[[Call], object]]] = {}
        self.authority, self._server_file = tls.ensure(self.folder)
        self._listener = proxy.Listener((host, port), self, tls.context(self._server_file))

    # -- life

    def start(self) -> Self:
        """Listen, in a thread of its own."""
        load()
        self._write_credentials()
        threading.Thread(target=self._listener.serve_forever, args=(0.05,), daemon=True, name="google").start()
        return self

    def stop(self) -> None:
        self._listener.shutdown()
        self._listener.server_close()
        if not self.keep:
            shutil.rmtree(self.folder, ignore_errors=True)

    def reset(self) -> None:
        """Forget everything, as if just started."""
        with self.state.lock:
            self.state.clear()
            self._faults.clear()
            self._hooks.clear()
            self.calls, self.requests, self.violations, self.seen = [], [], [], set()
            self.tunnels = []
            self.operation_polls, self.operation_seconds = 1, 2.0
            self.strict = True

    @property
    def port(self) -> int:
        return int(self._listener.server_address[1])

    @property
    def url(self) -> str:
        """The proxy's, for ``HTTPS_PROXY``; TLS without CONNECT is spoken on the same port."""
        return f"http://{self._listener.server_address[0]!s}:{self.port}"

    def environment(self) -> dict[str, str]:
        """The variables that lead any client here, with the owner's credentials."""
        local = "127.0.0.1,localhost"
        bundle = str(self.authority)
        return {
            "HTTPS_PROXY": self.url,
            "https_proxy": self.url,
            "NO_PROXY": local,
            "no_proxy": local,
            "REQUESTS_CA_BUNDLE": bundle,
            "SSL_CERT_FILE": bundle,
            "CURL_CA_BUNDLE": bundle,
            "CLOUDSDK_CORE_CUSTOM_CA_CERTS_FILE": bundle,
            "GOOGLE_APPLICATION_CREDENTIALS": str(self.folder / "credentials.json"),
            "NO_GCE_CHECK": "true",
        }

    def _write_credentials(self) -> None:
        target = self.folder / "credentials.json"
        target.touch(mode=0o600)
        target.write_text(
            json.dumps(
                {
                    "type": "authorized_user",
                    "client_id": "lab",
                    "client_secret": "lab",
                    "refresh_token": REFRESH_TOKEN,
                }
            )
        )

    @property
    def operation_polls(self) -> int:
        return self.operations.polls

    @operation_polls.setter
    def operation_polls(self, value: int) -> None:
        self.operations.polls = value

    @property
    def operation_seconds(self) -> float:
        return self.operations.seconds

    @operation_seconds.setter
    def operation_seconds(self, value: float) -> None:
        self.operations.seconds = value

    # -- what a test prepares

    def seed_project(self, name: str, services: Iterable[str] | None = None, owner: str | None = None) -> Thing:
        """Have a project.

        :param services: the enabled ones (``compute.googleapis.com``); None: every one that the lab serves.
        :param owner: who has roles/owner; by default ``google.owner``.
        """
        with self.state.lock:
            projects = self.state.note("projects")
            number = str(100000000000 + len(projects) + 1)
            projects[name] = {"number": number}
            served = {*discovery.DOCUMENTS} - {"www.googleapis.com"}
            self.state.note("services")[name] = sorted(served if services is None else services)
            account = owner or self.owner
            kind = "serviceAccount" if account.endswith("gserviceaccount.com") else "user"
            bindings = [{"role": "roles/owner", "members": [f"{kind}:{account}"]}]
            self.state.note("policies")[f"cloudresourcemanager/projects/{name}"] = {"version": 1, "bindings": bindings}
            self.state.save()
            return {"projectId": name, "projectNumber": number}

    def project_id(self, name: str) -> str:
        """A project's id, by its id or number."""
        projects = self.state.note("projects")
        return next((known for known, project in projects.items() if project["number"] == name), name)

    def zones(self) -> list[str]:
        """The zones that this Google has."""
        from .compute.catalogue import ZONES

        return ZONES

    def token(self, email: str | None = None, scopes: Iterable[str] = (PLATFORM,), seconds: float = 3600) -> str:
        """A bearer token."""
        text = f"ya29.lab-{secrets.token_urlsafe(24)}"
        with self.state.lock:
            tokens = self.state.note("tokens")
            for old in [name for name, known in tokens.items() if known["expires"] < time.time() - DAY]:
                del tokens[old]
            tokens[text] = {
                "email": email or self.owner,
                "scopes": sorted(scopes),
                "expires": time.time() + seconds,
            }
            self.state.save()
        return text

    def expire_tokens(self) -> None:
        """No token that was given out is worth anything any more."""
        with self.state.lock:
            self.state.note("tokens").clear()
            self.state.save()

    def revoke(self, permission: str, email: str | None = None) -> None:
        """Take a permission (``compute.networks.create``) from somebody, whatever their roles are."""
        with self.state.lock:
            denied = self.state.note("denied").setdefault(email or self.owner, [])
            denied.append(permission)
            self.state.save()

    def grant(self, permission: str, email: str | None = None) -> None:
        """Give a revoked permission back."""
        with self.state.lock:
            denied = self.state.note("denied").get(email or self.owner, [])
            if permission in denied:
                denied.remove(permission)
            self.state.save()

    def forbid(self, constraint: str, project: str) -> None:
        """Set an organisation policy: ``iam.disableServiceAccountKeyCreation``, ``compute.vmExternalIpAccess``."""
        with self.state.lock:
            self.state.note("constraints").setdefault(project, []).append(constraint.removeprefix("constraints/"))
            self.state.save()

    def service_account_key(self, email: str) -> dict[str, str]:
        """A service account's key file (its content), of an account that owns its project."""
        from . import iam

        with self.state.lock:
            key = iam.issue_key(self, email)
            self.state.save()
            return key

    def federated(self, project: str, impersonate: str | None = None, subject: str = "repo:example/code") -> Thing:
        """An external account's configuration (workload identity federation), whose token the lab takes.

        Its principal has no permissions: give it some with the policy of the project or of ``impersonate``.
        """
        from . import oauth

        with self.state.lock:
            configuration = oauth.federate(self, project, impersonate, subject)
            self.state.save()
            return configuration

    def fail(
        self,
        method: str,
        status: int = 503,
        reason: str | None = None,
        message: str | None = None,
        *,
        kind: str = "before",
        times: int = 1,
        headers: dict[str, str] | None = None,
        seconds: float = 0.0,
        details: list[dict[str, Any]] | None = None,
    ) -> None:
        """Make the next ``times`` calls of a method go wrong.

        :param method: its id, or ``token`` for the token endpoint, or ``*`` for any method.
        :param kind:
            ``before``: answered with ``status`` and nothing done;
            ``answer``: done, but answered with ``status``;
            ``drop``: the connection is closed and nothing done;
            ``after``: done, and the connection is closed before the answer;
            ``operation``: accepted, but the operation ends with the error ``reason`` (``QUOTA_EXCEEDED``), undone;
            ``stuck``: done, but the operation never ends;
            ``slow``: answered after ``seconds``.
        :param headers: more headers of the refusal, for example ``Retry-After``.
        :param details: the refusal's ``details``, or the operation's error's ``errorDetails``.
        """
        if kind not in ("before", "answer", "drop", "after", "operation", "stuck", "slow"):
            raise ValueError(f"no such kind of fault: {kind}")
        text = message or f"The lab was told to fail {method}."
        if kind == "operation":
            reason = reason or "INTERNAL_ERROR"
        refusal = Refusal(status, text, reason, headers=headers, details=details)
        with self.state.lock:
            self._faults.setdefault(method, []).append(Fault(kind, times, refusal, seconds))

    def before(self, method: str, function: Callable[[Call], object]) -> None:
        """Run a function once, before the next call of a method is answered."""
        self._hooks.setdefault(method, []).append(function)

    def take_hooks(self, method: str) -> list[Callable[[Call], object]]:
        """What is to run before this call."""
        return self._hooks.pop(method, [])

    def take_fault(self, method: str) -> Fault | None:
        """The fault that this call meets; counted."""
        for name in (method, "*"):
            waiting = self._faults.get(name, [])
            if waiting:
                waiting[0].times -= 1
                return waiting.pop(0) if waiting[0].times <= 0 else waiting[0]
        return None

    # -- what a test looks at

    def thing(self, path: str, api: str = "compute") -> Thing | None:
        """A copy of what is stored at a path."""
        with self.state.lock:
            return copy.deepcopy(self.state.get(f"{api}/{path}"))

    def call(
        self, method_id: str, parameters: dict[str, str] | None = None, body: Any = None, email: str | None = None
    ) -> Thing:
        """Answer a call in this process, without HTTP; compute's operations are DONE when it returns.

        :raises Refusal: if Google would refuse it, or the operation ends in an error.
        """
        load()
        document, method = discovery.method(method_id)
        given = dict(parameters or {})
        path = discovery.expand(method, given)
        caller = Caller(email or self.owner, frozenset([PLATFORM]))
        queries = {name: [str(value)] for name, value in given.items() if name not in discovery.path_names(method)}
        with self.state.lock:
            self.operations.finish_all()
            values = method.path_values(path) or {}
            answer = dispatch.answer(
                self, dispatch.make_call(self, document, method, path, values, queries, body, caller), body
            )
            if answer.get("kind") == "compute#operation":
                answer = self.operations.finish(answer)
                if "error" in answer:
                    error = answer["error"]["errors"][0]
                    raise Refusal(answer.get("httpErrorStatusCode", 400), error["message"], error["code"])
            self.state.save()
        return copy.deepcopy(answer)

    def respond(self, host: str, http: str, target: str, headers: dict[str, str], payload: bytes) -> Answer:
        """Answer one HTTP request without a socket; ``headers`` by lower-case name."""
        return dispatch.respond(self, host, http, target, headers, payload)
