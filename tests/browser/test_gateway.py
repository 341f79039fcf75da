"""The UI behind a name: what a browser does with a login, and that there is nothing to read without one.

With test_gateway_logins.py, which comes after it, on one machine: no gateway, a gateway, the gateway taken away.
"""

from __future__ import annotations

import json
import socket
import ssl
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Error, Playwright

from tests.browser.conftest import SHOTS, SIZE, Tab, chromium
from tests.browser.gateway import EDITOR, NAME, PASSWORDS, READER, Gateway
from tests.browser.test_ui import watch_a_run_over_two_releases
from tests.certificates import certificate
from tests.e2e.harness import Machine, wait
from tests.e2e.redeploy.user_code import UserCode

WEBSOCKET = {
    "Connection": "Upgrade",
    "Upgrade": "websocket",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
    "Sec-WebSocket-Protocol": "graphql-ws",
}
QUERY = b'{"query": "{ version }"}'
MUTATION = "mutation { reloadWorkspace { __typename } }"


@pytest.fixture(scope="module")
def gateway_browser(playwright: Playwright, gateway: Gateway) -> Iterator[Browser]:
    """Chromium that finds the name and takes the one certificate for it."""
    opened = playwright.chromium.launch(
        executable_path=chromium(),
        args=[
            "--no-sandbox",
            f"--host-resolver-rules=MAP {NAME} {gateway.address}",
            f"--ignore-certificate-errors-spki-list={gateway.fingerprint()}",
            # It would keep pages of somebody else from private addresses by itself; not every browser does.
            "--disable-features=LocalNetworkAccessChecks,BlockInsecurePrivateNetworkRequests",
        ],
    )
    yield opened
    opened.close()


@pytest.fixture
def tab(gateway_browser: Browser, request: pytest.FixtureRequest) -> Iterator[Tab]:
    """A tab of somebody who has logged in: the editor, or who the test names."""
    SHOTS.mkdir(parents=True, exist_ok=True)
    user = getattr(request, "param", EDITOR)
    context = gateway_browser.new_context(
        viewport=SIZE, http_credentials={"username": user, "password": PASSWORDS[user]}
    )
    opened = Tab(context.new_page(), f"https://{NAME}", "gateway-" + request.node.name.removeprefix("test_"))
    yield opened
    opened.shoot("end")
    context.close()


# --- with a login, in a browser ---


def test_a_runs_events_arrive_live_through_the_gateway_while_releases_change(
    tab: Tab, machine: Machine, user_code: UserCode
) -> None:
    """Launched behind the login."""
    watch_a_run_over_two_releases(tab, machine, user_code, user_code.good(710))
    assert tab.sockets == [f"wss://{NAME}/graphql"] * len(tab.sockets)


@pytest.mark.parametrize("tab", [READER], indirect=True)
def test_who_only_reads_sees_the_release_and_can_launch_nothing(tab: Tab) -> None:
    tab.open("/deployment/locations")
    tab.see("dagster_core")
    tab.see("Loaded")
    tab.open("/locations/dagster_core/jobs/quick/playground")
    # The UI shows the job in the place of its launchpad.
    tab.see("say_release")
    assert tab.page.get_by_role("button", name="Launch Run").count() == 0
    assert tab.errors == []


def test_without_a_login_the_browser_shows_nothing(gateway_browser: Browser) -> None:
    context = gateway_browser.new_context(viewport=SIZE)
    page = context.new_page()
    # Without a window there is nobody to ask for a password.
    with pytest.raises(Error, match="ERR_INVALID_AUTH_CREDENTIALS"):
        page.goto(f"https://{NAME}/runs", timeout=120_000)
    page.screenshot(path=SHOTS / "gateway-no-login.png")
    assert "Dagster" not in page.content()
    context.close()


def test_a_page_of_somebody_else_can_do_nothing_with_the_login(tab: Tab, machine: Machine) -> None:
    """A browser sends the login along, whoever asks: requests are refused by where they come from."""
    tab.open("/runs")
    before = machine.graphql("{ runsOrError { ... on Runs { count } } }")
    tab.page.route("https://evil.test/", lambda route: route.fulfill(body="<h1>evil</h1>", content_type="text/html"))
    tab.page.goto("https://evil.test/")
    did = tab.page.evaluate(
        """async ([target, query]) => {
          const image = await new Promise(done => {
            const made = new Image(); made.onload = () => done('shown'); made.onerror = () => done('refused');
            made.src = target + '/graphql?query=' + encodeURIComponent(query) });
          const read = await fetch(target + '/server_info', {credentials: 'include'})
            .then(() => 'read', () => 'refused');
          const sent = await fetch(target + '/graphql?query=' + encodeURIComponent(query),
            {method: 'POST', mode: 'no-cors', credentials: 'include'}).then(() => 'sent', () => 'refused');
          const socket = await new Promise(done => {
            const made = new WebSocket(target.replace('https', 'wss') + '/graphql', 'graphql-ws');
            made.onopen = () => done('open'); made.onerror = () => done('refused') });
          return [image, read, sent, socket] }""",
        [f"https://{NAME}", MUTATION],
    )
    # What came of the one without an answer, nginx's log says.
    assert did == ["refused", "refused", "sent", "refused"]
    log = machine.ssh("grep evil.test /var/log/nginx/access.log")
    assert {line.split('" ')[1].split()[0] for line in log.splitlines()} == {"403"}, log
    assert machine.graphql("{ runsOrError { ... on Runs { count } } }") == before


# --- without one, on the wire ---

PATHS = [
    *("/", "/runs", "/graphql", "/graphql?query=%7Bversion%7D", "/server_info", "/dagit_info", "/favicon.png"),
    *("/_next/static/x.js", "/vendor/graphiql/graphiql.min.css", "/robots.txt", "/manifest.json"),
    *("/logs/a/compute_logs/b.err", "/notebook?path=x.ipynb&repoLocName=dagster_core", "/download_debug/0"),
    *("/report_asset_materialization/x", "/report_asset_check/x", "/report_asset_observation/x"),
    *("/-/gateway/health", "/-/gateway/login", "/.well-known/acme-challenge/x"),
    # Where a proxy and what is behind it may see two different paths.
    *("//graphql", "///server_info", "/./server_info", "/x/../server_info", "/%2e%2e/server_info", "/..%2fserver_info"),
    *("/server_info/", "/SERVER_INFO", "/server_info?", "/server_info%00", "/server_info;x", "/server_info%20"),
    *("/%73erver_info", "/\\server_info", "/-/gateway/login/../../server_info", "/-/gateway/login/..%2fserver_info"),
    *("/-/gateway/login%2f", "/.well-known/acme-challenge/../../server_info", "https://dagster.test/server_info"),
    *("http://127.0.0.1:3000/server_info", "/-/gateway/login%3f/server_info", "/-/gateway/login#/server_info"),
]  # fmt: skip


@pytest.mark.parametrize("path", PATHS)
def test_nothing_is_to_be_read_without_a_login(gateway: Gateway, path: str) -> None:
    for method in ("GET", "HEAD", "POST", "PUT", "OPTIONS", "TRACE", "FOO"):
        answer = gateway.ask(path, method, {"Content-Type": "application/json"}, QUERY if method == "POST" else b"")
        assert answer.status in (400, 401, 403, 404, 405, 421), (method, answer)
        if answer.status != 401:
            # nginx's own refusal: what it cannot read, and the inside of the gateway.
            assert b"<center>nginx</center>" in answer.body or method == "HEAD", (method, answer)
        assert b"version" not in answer.body
        assert b"agster" not in answer.body


@pytest.mark.parametrize(
    "headers",
    [
        WEBSOCKET,
        {**WEBSOCKET, "Origin": f"https://{NAME}"},
        {"Authorization": "Basic"},
        {"Authorization": "Basic YWRhOndyb25nIGhvcnNl"},
        {"Authorization": "Bearer canary"},
        {"X-Gateway-User": EDITOR},
        {"X-Forwarded-User": EDITOR, "X-Auth-Request-Email": "ada@example.com", "Remote-User": EDITOR},
        {"X-Original-URL": "/-/gateway/health", "X-Rewrite-URL": "/-/gateway/health", "X-Real-IP": "127.0.0.1"},
        {"X-Goog-IAP-JWT-Assertion": "a.b.c", "X-Goog-Authenticated-User-Email": "accounts.google.com:ada@example.com"},
        {"Host": "127.0.0.1:3000"},
        {"Host": "localhost"},
        {"Host": ""},
        {"Connection": "close, Authorization"},
        {"Transfer-Encoding": "chunked", "Content-Length": "3"},
        {"Content-Length": "3", "content-length": "4"},
        {"Upgrade": "h2c", "Connection": "Upgrade, HTTP2-Settings", "HTTP2-Settings": "AAMAAABkAARAAAAAAAIAAAAA"},
    ],
    ids=lambda headers: next(iter(headers)),
)
def test_no_header_lets_in(gateway: Gateway, headers: dict[str, str]) -> None:
    for path in ("/graphql", "/server_info"):
        answer = gateway.ask(path, headers=headers)
        # 405: GraphQL by GET, which is refused to everybody.
        assert answer.status in (400, 401, 403, 405, 421), answer
        assert b"version" not in answer.body


def test_many_wrong_passwords_make_wait(gateway: Gateway, machine: Machine) -> None:
    """How many exactly, and for how long: tests/unit/operations/test_gateway.py, which has a clock of its own."""
    wrong = {"Authorization": "Basic YWRhOndyb25nIGhvcnNl"}
    try:
        # A slow machine hashes so slowly that a minute passes before the tenth.
        wait(lambda: gateway.ask("/", headers=wrong).status == 403, 300, "an address that has to wait")
        said = machine.ssh("journalctl --unit dagster-gce-gateway --since -10min --output cat")
        assert "refused ada from" in said
        assert "wrong horse" not in said
    finally:
        machine.ssh("systemctl restart dagster-gce-gateway")
    wait(lambda: gateway.ask("/server_info", user=EDITOR).status == 200, 60, "the service is back")


def test_plain_http_only_leads_to_https(gateway: Gateway) -> None:
    for path in ("/", "/graphql?query=x", "//evil.test/", "/a%0d%0aSet-Cookie:x"):
        for method in ("GET", "POST"):
            answer = gateway.ask_plainly(path, method)
            assert answer.status == 301
            assert answer.headers["location"] == f"https://{NAME}{path}"
            assert "set-cookie" not in answer.headers
    assert gateway.ask_plainly("/", name="evil.test").headers["location"] == f"https://{NAME}/"
    assert gateway.ask_plainly("/server_info", port=443).status == 400


def test_only_todays_tls_and_only_for_the_name(gateway: Gateway) -> None:
    def version(most: ssl.TLSVersion) -> str | None:
        context = gateway.trust()
        context.minimum_version = ssl.TLSVersion.TLSv1
        context.maximum_version = most
        context.set_ciphers("ALL:@SECLEVEL=0")
        try:
            with gateway.connect(context=context) as connection:
                return connection.version()
        except (ssl.SSLError, OSError):
            return None

    offered = {most: version(most) for most in (ssl.TLSVersion.TLSv1_1, ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3)}
    assert list(offered.values()) == [None, "TLSv1.2", "TLSv1.3"]
    loose = ssl.create_default_context()
    loose.check_hostname, loose.verify_mode = False, ssl.CERT_NONE
    for name in ("other.test", gateway.address):
        with pytest.raises((ssl.SSLError, OSError)):
            gateway.connect(name, loose)


def test_headers_protect_the_page_and_say_nothing_of_the_server(gateway: Gateway) -> None:
    answer = gateway.ask("/", user=EDITOR)
    assert answer.status == 200
    assert answer.headers["strict-transport-security"] == "max-age=31536000"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["x-frame-options"] == "SAMEORIGIN"
    assert answer.headers["referrer-policy"] == "strict-origin-when-cross-origin"
    assert answer.headers["server"] == "nginx"
    assert "frame-ancestors 'self'" in answer.headers["content-security-policy"]


# --- where a login is not enough ---


@pytest.mark.parametrize(
    ("path", "method", "headers"),
    [
        ("/graphql", "POST", {"Origin": "https://evil.test"}),
        ("/graphql", "POST", {"Origin": "null"}),
        ("/graphql", "POST", {"Origin": f"http://{NAME}"}),
        ("/graphql", "POST", {"Origin": f"https://{NAME}.evil.test"}),
        ("/graphql", "POST", {"Origin": f"https://{NAME}:8443"}),
        ("/graphql", "GET", {**WEBSOCKET, "Origin": "https://evil.test"}),
        ("/server_info", "GET", {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors"}),
        ("/server_info", "GET", {"Sec-Fetch-Site": "same-site", "Sec-Fetch-Mode": "cors"}),
        ("/report_asset_materialization/x", "POST", {"Origin": "https://evil.test"}),
    ],
)
def test_another_sites_page_is_refused(gateway: Gateway, path: str, method: str, headers: dict[str, str]) -> None:
    body = QUERY if method == "POST" else b""
    assert gateway.ask(path, method, {"Content-Type": "application/json", **headers}, body, EDITOR).status == 403


@pytest.mark.parametrize("path", ["/graphql", "//graphql", "/x/../graphql", "/%67raphql", "/graphql/"])
def test_nothing_is_changed_by_a_link(gateway: Gateway, path: str) -> None:
    """Dagster takes a mutation by GET, which an image or a link of any page makes."""
    address = f"{path}?query=mutation%7BreloadWorkspace%7B__typename%7D%7D"
    assert gateway.ask(address, user=EDITOR).status == 405
    assert gateway.ask(address, "HEAD", user=EDITOR).status == 405
    # The playground's page is only that, whatever the address asks for.
    page = gateway.ask(address, headers={"Accept": "text/html"}, user=EDITOR)
    assert page.status in (200, 307)
    assert b"WorkspaceLocation" not in page.body


def test_a_login_does_what_the_ui_does(gateway: Gateway) -> None:
    own = {"Origin": f"https://{NAME}", "Sec-Fetch-Site": "same-origin", "Sec-Fetch-Mode": "cors"}
    body = {"Content-Type": "application/json"}
    assert gateway.ask("/graphql", "POST", {**own, **body}, QUERY, EDITOR).json["data"]["version"]
    assert gateway.ask("/graphql", "GET", {**WEBSOCKET, "Origin": f"https://{NAME}"}, user=EDITOR).status == 101
    link = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"}
    assert gateway.ask("/runs", headers=link, user=EDITOR).status == 200
    assert gateway.ask("/graphql", "POST", {**own, **body}, b" " * (17 << 20), EDITOR).status == 413


def test_who_only_reads_changes_nothing(gateway: Gateway, machine: Machine) -> None:
    """Dagster itself refuses: it is another webserver that answers."""
    launching = """mutation { launchRun(executionParams: {mode: "default", selector: {
        repositoryLocationName: "dagster_core", repositoryName: "__repository__", jobName: "quick"
        }}) { __typename } }"""
    paused = 'mutation { setConcurrencyLimit(concurrencyKey: "x", limit: 1) }'
    assert gateway.graphql(launching, READER) == {"launchRun": {"__typename": "UnauthorizedError"}}
    assert gateway.graphql(MUTATION, READER) == {"reloadWorkspace": {"__typename": "UnauthorizedError"}}
    refused = gateway.ask(
        "/graphql", "POST", {"Content-Type": "application/json"}, json.dumps({"query": paused}).encode(), READER
    )
    assert "errors" in refused.json
    for kind in ("materialization", "check", "observation"):
        answer = gateway.ask(f"/report_asset_{kind}/x?check_name=y&passed=true", "POST", user=READER)
        assert answer.status in (400, 401), answer
    assert gateway.graphql(MUTATION, EDITOR)["reloadWorkspace"]["__typename"] == "Workspace"
    status = machine.play("playbooks/status.yml", dagster_status_format="json").ok()
    assert "dagster-webserver-read-only" in status.output


def test_who_only_reads_follows_a_deploy(gateway: Gateway, user_code: UserCode) -> None:
    """It cannot be told to read workspace.yaml again, so it has to notice."""
    query = "{ workspaceOrError { ... on Workspace { locationEntries { loadStatus displayMetadata { key value } } } } }"

    def host() -> str:
        try:
            entries = gateway.graphql(query, READER)["workspaceOrError"]["locationEntries"]
        except (AssertionError, OSError):
            return "away"
        return str({each["key"]: each["value"] for each in entries[0]["displayMetadata"]}.get("host"))

    assert host() == user_code.served().host
    user_code.deploy(user_code.good(711)).ok()
    wait(lambda: host() == user_code.served().host, 120, "the new release in the read-only webserver", host)
    user_code.rollback().ok()
    wait(lambda: host() == user_code.served().host, 120, "the release before", host)


# --- the machine ---


def test_the_webservers_listen_for_the_machine_only(gateway: Gateway, machine: Machine) -> None:
    listening = {line.split()[3] for line in machine.ssh("ss -Hlnt").splitlines()}
    assert {"127.0.0.1:3000", "127.0.0.1:3001"} <= listening
    assert not [each for each in listening if each.endswith((":3000", ":3001")) and not each.startswith("127.0.0.1:")]
    for port in (3000, 3001, 9520):
        with pytest.raises((TimeoutError, ConnectionRefusedError)):
            socket.create_connection((gateway.address, port), timeout=2).close()


def test_the_login_service_has_no_rights(machine: Machine, gateway: Gateway) -> None:
    process = machine.ssh("systemctl show -P MainPID dagster-gce-gateway").strip()
    status = dict(line.split(":\t", 1) for line in machine.ssh(f"cat /proc/{process}/status").splitlines())
    assert "0" not in status["Uid"].split()
    assert (status["CapEff"], status["CapBnd"]) == ("0" * 16, "0" * 16)
    assert status["NoNewPrivs"] == "1"
    files = machine.ssh("stat -c '%a %U %n' /etc/dagster-gce/gateway /etc/dagster-gce/gateway/*").splitlines()
    assert {line.split()[2].rpartition("/")[2]: line.split()[0] for line in files} == {
        "gateway": "700", "certificate.pem": "644", "key.pem": "600", "login": "600", "state": "644",
    }  # fmt: skip
    for password in PASSWORDS.values():
        assert machine.ssh(f"grep -rlF {password} /etc /opt/dagster /var/log /run 2>/dev/null || true").strip() == ""


def test_while_the_webserver_starts_the_page_says_so_and_comes_by_itself(tab: Tab, machine: Machine) -> None:
    machine.ssh("docker stop -t 5 dagster-webserver")
    try:
        tab.open("/deployment/locations")
        tab.see("Dagster starts, or is away")
    finally:
        machine.ssh("docker start dagster-webserver")
    tab.see("dagster_core", 150)


def test_without_the_service_nobody_comes_in(gateway: Gateway, machine: Machine) -> None:
    machine.ssh("systemctl stop dagster-gce-gateway")
    try:
        assert gateway.ask("/server_info", user=EDITOR).status == 500
        assert gateway.ask("/server_info").status == 500
        assert "dagster-gce-gateway.service is" in machine.ssh("dagster-gce status || true")
    finally:
        machine.ssh("systemctl start dagster-gce-gateway")
    wait(lambda: gateway.ask("/server_info", user=EDITOR).status == 200, 30, "the service is back")


def test_a_dead_nginx_comes_back(gateway: Gateway, machine: Machine) -> None:
    machine.ssh("pkill --signal KILL --oldest nginx; pkill --signal KILL nginx || true")

    def answers() -> bool:
        try:
            return gateway.ask("/server_info", user=EDITOR).status == 200
        except OSError:
            return False

    wait(answers, 30, "an answer")


def test_a_second_run_changes_nothing_and_says_so_before(gateway: Gateway, machine: Machine) -> None:
    played = machine.play("site.yml", "--check", "--diff", **gateway.variables).ok()
    assert played.changed == 0, played.output[-6000:]


def test_other_users_and_another_certificate_count_at_once(gateway: Gateway) -> None:
    old = gateway.certificate
    new = certificate(NAME, days=10)
    variables = {
        "dagster_gateway_certificate": new.chain,
        "dagster_gateway_certificate_key": new.key,
        "dagster_gateway_users": {EDITOR: PASSWORDS[EDITOR]},
        "dagster_gateway_read_only_users": [],
    }
    assert gateway.ask("/server_info", user=READER).status == 200
    assert gateway.role(**variables).ok().changed == 2
    gateway.certificate = new
    try:
        assert gateway.ask("/server_info", user=READER).status == 401
        assert gateway.ask("/server_info", user=EDITOR).status == 200
        assert f"the certificate of {NAME} ends in 10 days" in gateway.machine.ssh("dagster-gce status || true")
        assert 'dagster_gce_problem{name="certificate",severity="warning"} 1' in gateway.machine.ssh(
            "dagster-gce metrics"
        )
    finally:
        gateway.role().ok()
        gateway.certificate = old
    assert gateway.ask("/server_info", user=READER).status == 200


def test_what_nginx_refuses_is_taken_back(gateway: Gateway, machine: Machine) -> None:
    machine.ssh("echo 'map $http_origin $dagster_gateway_broken { nonsense' >/etc/nginx/conf.d/zz-somebody.conf")
    try:
        before = machine.ssh("sha256sum /etc/nginx/conf.d/dagster-gateway.conf /etc/dagster-gce/gateway/*")
        gateway.role(dagster_gateway_max_body="8m").refused("nginx refuses its configuration", "zz-somebody.conf")
        assert machine.ssh("sha256sum /etc/nginx/conf.d/dagster-gateway.conf /etc/dagster-gce/gateway/*") == before
        assert gateway.ask("/server_info", user=EDITOR).status == 200
    finally:
        machine.ssh("rm /etc/nginx/conf.d/zz-somebody.conf")
