"""Metrics, alerts and notifications on a real machine: a real Prometheus, a real SMTP server, parts that are down.

Prometheus, promtool and the SMTP server are Debian's packages.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.e2e.harness import ROOT, Machine, Played, long_form, wait

RULES = ROOT / "files/monitoring/dagster_gce.rules.yml"
RULES_TEST = Path(__file__).with_name("rules_test.yml")
SECRET = "c4n4ry-webhook"
FOLDER = "/opt/monitoring-test"

# Prints each request on one line, and answers.
_RECEIVER = """
import http.server, json
class Receive(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0)).decode()
        with open("/opt/monitoring-test/requests", "a") as log:
            log.write(json.dumps([self.command, self.path, body]) + "\\n")
        self.send_response(200)
        self.end_headers()
    do_GET = do_POST
http.server.ThreadingHTTPServer(("127.0.0.1", 9601), Receive).serve_forever()
"""

_PROMETHEUS = """
global: {scrape_interval: 3s, evaluation_interval: 1s, scrape_timeout: 3s}
rule_files: [fast.rules.yml]
scrape_configs:
  - job_name: dagster_gce
    static_configs: [{targets: ["127.0.0.1:9520"]}]
"""

_FORGET_THE_LAST_HEARTBEAT = r"""sed -i 's/"heartbeat": [0-9.]*/"heartbeat": 0/' /opt/dagster/state/notify_known.json"""


def fast_rules() -> str:
    """The alert rules, with minutes taken out: everything else is what an operator loads."""
    rules = yaml.safe_load(RULES.read_text())
    for rule in rules["groups"][0]["rules"]:
        rule.pop("for", None)
    text = yaml.safe_dump(rules)
    assert "heartbeat_timestamp_seconds > 180" in text
    # Each daemon gives a sign every 30 s.
    return text.replace("heartbeat_timestamp_seconds > 180", "heartbeat_timestamp_seconds > 40")


class Monitored:
    """The machine with its monitoring set up, and what listens to it."""

    def __init__(self, machine: Machine, playbook: Path) -> None:
        self.machine, self.playbook = machine, playbook
        self.settings: dict[str, Any] = {
            "dagster_monitoring_webhook_url": f"http://127.0.0.1:9601/{SECRET}",
            "dagster_monitoring_heartbeat_url": "http://127.0.0.1:9601/alive",
            "dagster_monitoring_mail_host": "127.0.0.1",
            "dagster_monitoring_mail_port": 9602,
            "dagster_monitoring_mail_security": "none",
            "dagster_monitoring_mail_from": "dagster@example.com",
            "dagster_monitoring_mail_to": ["ops@example.com"],
            "dagster_monitoring_notify_after": 0,
        }

    def play(self, *arguments: str, **variables: Any) -> Played:
        return self.machine.play(str(self.playbook), *arguments, **{**self.settings, **variables}).ok()

    def metrics(self) -> tuple[str, float]:
        """What the endpoint answers, and in how many seconds."""
        printed = self.machine.ssh(
            "curl -s -m 20 --retry 5 --retry-connrefused -w '%{time_total}' http://127.0.0.1:9520/metrics"
        )
        text, _, seconds = printed.rpartition("\n")
        return text + "\n", float(seconds)

    def up(self) -> dict[str, bool]:
        text, seconds = self.metrics()
        assert seconds < 10, "Prometheus gives up after ten seconds"
        return {part: value == "1" for part, value in re.findall(r'dagster_gce_up\{part="(\w+)"\} (\d)', text)}

    def problems(self) -> list[str]:
        state = json.loads(self.machine.ssh("dagster-gce status --json || true"))
        return [each["name"] for each in state["problems"]]

    def alerts(self) -> set[tuple[str, str]]:
        """What fires: alert, and the daemon or problem that it names."""
        found = json.loads(self.machine.ssh("curl -s http://127.0.0.1:9603/api/v1/alerts"))["data"]["alerts"]
        return {
            (each["labels"]["alertname"], each["labels"].get("daemon") or each["labels"].get("name", ""))
            for each in found
            if each["state"] == "firing"
        }

    def requests(self) -> list[tuple[str, str, str]]:
        """What the web service has got since the last call."""
        printed = self.machine.ssh(f"cd {FOLDER}; touch requests; cat requests; : > requests")
        return [tuple(json.loads(line)) for line in printed.splitlines()]

    def mails(self) -> str:
        """All mails so far."""
        return self.machine.ssh(f"cat {FOLDER}/mail/new/* 2>/dev/null || true")


@pytest.fixture(scope="module")
def monitored(machine: Machine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Monitored]:
    roles = [{"role": "dataops.dagster_gce.dagster_monitoring"}]
    playbook = tmp_path_factory.mktemp("monitoring") / "play.yml"
    playbook.write_text(yaml.safe_dump([{"hosts": "dagster", "gather_facts": False, "become": True, "roles": roles}]))
    found = Monitored(machine, playbook)
    files = {
        "receiver.py": _RECEIVER,
        "prometheus.yml": _PROMETHEUS,
        "fast.rules.yml": fast_rules(),
        RULES.name: RULES.read_text(),
        RULES_TEST.name: RULES_TEST.read_text(),
    }
    written = "\n".join(f"cat > {name} <<'END_OF_FILE'\n{text}\nEND_OF_FILE" for name, text in files.items())
    machine.ssh(
        f"""set -e; mkdir -p {FOLDER}; cd {FOLDER}
{written}
exec >/dev/null 2>&1
apt-get -qq update
apt-get -qq install -y python3-aiosmtpd
apt-get -qq download prometheus promtool
for each in *.deb; do dpkg -x $each .; done
systemd-run --quiet --unit test-receiver python3 {FOLDER}/receiver.py
systemd-run --quiet --unit test-mailbox \\
  python3 -m aiosmtpd -n -l 127.0.0.1:9602 -c aiosmtpd.handlers.Mailbox {FOLDER}/mail
systemd-run --quiet --unit test-prometheus {FOLDER}/usr/bin/prometheus --config.file={FOLDER}/prometheus.yml \\
  --storage.tsdb.path={FOLDER}/data --web.listen-address=127.0.0.1:9603
""",
        timeout=300,
    )
    yield found
    machine.ssh(
        f"""dagster-gce resume
docker unpause dagster-webserver 2>/dev/null || true
systemctl stop test-receiver test-mailbox test-prometheus
docker start dagster-postgres dagster-webserver dagster-daemon >/dev/null
rm -rf {FOLDER}"""
    )
    # The machine's own settings again.
    found.settings = {}
    found.play()


def test_the_role_says_what_it_does_and_does_it_once(monitored: Monitored) -> None:
    first = monitored.play("--check", "--diff")
    assert first.changed == 1
    assert "dagster-gce-notify.timer" in first.output
    made = monitored.play("--diff", "-vvv")
    assert made.changed == 1
    for printed in (first.output, made.output, monitored.machine.ssh("journalctl --since -2min -o cat")):
        assert SECRET not in printed
    assert SECRET in monitored.machine.ssh("cat /etc/dagster-gce/monitoring.json")
    again = monitored.play()
    assert again.changed == 0, again.output
    monitored.machine.ssh("systemctl stop dagster-gce-notify.timer")
    assert "unit_notify" in monitored.problems()
    assert monitored.play().changed == 1
    assert "unit_notify" not in monitored.problems()


def test_the_ops_agent_is_told_where_the_metrics_are(monitored: Monitored) -> None:
    monitored.play("--check", "--diff", dagster_monitoring_ops_agent=True)
    monitored.play(dagster_monitoring_ops_agent=True)
    assert monitored.play(dagster_monitoring_ops_agent=True).changed == 0
    written = monitored.machine.ssh("cat /etc/google-cloud-ops-agent/config.yaml; rm -r /etc/google-cloud-ops-agent")
    metrics = yaml.safe_load(written)["metrics"]
    receiver = metrics["receivers"]["dagster_gce"]
    assert receiver["type"] == "prometheus"
    assert metrics["service"]["pipelines"]["dagster_gce"]["receivers"] == ["dagster_gce"]
    # What stands below `config` is Prometheus' own.
    promtool = f"{FOLDER}/usr/bin/promtool check config /dev/stdin"
    monitored.machine.ssh(f"{promtool} <<'END_OF_FILE'\n{yaml.safe_dump(receiver['config'])}END_OF_FILE")


def test_switched_off_it_leaves_nothing_but_what_it_found(monitored: Monitored) -> None:
    assert monitored.play(dagster_monitoring_enabled=False).changed == 1
    left = monitored.machine.ssh("ls /etc/systemd/system /etc/dagster-gce; systemctl list-units --all")
    assert not re.search(r"dagster-gce-(metrics|notify)|monitoring\.json", left)
    assert "dagster-gce-watch.timer" in left
    assert not [each for each in monitored.problems() if "notify" in each or "metrics" in each]
    assert monitored.play().changed == 1


def test_promtool_accepts_metrics_and_rules(monitored: Monitored) -> None:
    text, _ = monitored.metrics()
    assert 'dagster_gce_daemon_last_heartbeat_timestamp_seconds{daemon="SENSOR"} ' in text
    promtool = f"cd {FOLDER}; usr/bin/promtool"
    monitored.machine.ssh(f"{promtool} check metrics <<'END_OF_FILE'\n{text}END_OF_FILE")
    assert "18 rules found" in monitored.machine.ssh(f"{promtool} check rules {RULES.name}")
    monitored.machine.ssh(f"{promtool} test rules {RULES_TEST.name}")
    # It can fail.
    wrong = "sed s/600x20/9600x20/ rules_test.yml > wrong_test.yml; usr/bin/promtool test rules wrong_test.yml"
    assert "FAILED" in monitored.machine.ssh(f"cd {FOLDER}; {{ {wrong}; }} 2>&1 || true")


def test_the_numbers_are_true(monitored: Monitored) -> None:
    machine = monitored.machine
    text, _ = monitored.metrics()

    def value(name: str) -> float:
        (found,) = re.findall(rf"^{re.escape(name)} (\S+)$", text, re.MULTILINE)
        return float(found)

    heartbeats = [float(each) for each in re.findall(r"last_heartbeat_timestamp_seconds\{.*\} (\S+)", text)]
    assert abs(time.time() - max(heartbeats)) < 60
    assert value('dagster_gce_location_loaded{location="dagster_core"}') == 1
    release = machine.ssh("basename $(readlink /opt/dagster/releases/current)").strip()
    assert f'release="{release}"' in text
    deploys = machine.ssh("""grep '"operation": "deploy"' /opt/dagster/deploys.jsonl | grep -c '"result": "ok"'""")
    assert value('dagster_gce_deploys_total{operation="deploy",result="ok"}') == int(deploys)
    before = value('dagster_gce_runs_finished_total{result="SUCCESS"}')

    def counted() -> bool:
        found = re.search(r'runs_finished_total\{result="SUCCESS"\} (\S+)', monitored.metrics()[0])
        return found is not None and float(found[1]) > before

    machine.launch("quick")
    wait(counted, 120, "a run that has ended is counted")


def test_a_daemon_that_stops_is_told_by_alert_webhook_and_mail(monitored: Monitored) -> None:
    machine = monitored.machine
    machine.ssh("dagster-gce pause 'a test of the alerts'; systemctl start dagster-gce-notify")
    monitored.requests()
    machine.ssh("docker stop -t 5 dagster-daemon; systemctl start dagster-gce-notify")
    told = [json.loads(body) for method, _, body in monitored.requests() if method == "POST"]
    assert "container_dagster_daemon" in [each["name"] for message in told for each in message["came"]]
    assert "NEW (critical): container dagster-daemon is exited" in monitored.mails()
    assert {"container_dagster_daemon", "watch_paused"} <= set(monitored.problems())
    # The sign of life stops with it: an outside service raises the alarm even if nothing of ours could.
    machine.ssh(f"{_FORGET_THE_LAST_HEARTBEAT}; systemctl start dagster-gce-notify")
    assert "/alive" not in [path for _, path, _ in monitored.requests()]
    expected = {("DagsterProblem", "container_dagster_daemon"), ("DagsterDaemonSilent", "SENSOR")}
    wait(lambda: expected <= monitored.alerts(), 90, f"{expected} fire", monitored.alerts)

    machine.ssh("docker start dagster-daemon; dagster-gce resume")
    wait(lambda: not expected & monitored.alerts(), 120, "no alert", monitored.alerts)
    wait(lambda: not monitored.problems(), 60, "no problem", monitored.problems)
    machine.ssh("systemctl start dagster-gce-notify")
    requests = monitored.requests()
    told = [json.loads(body) for method, _, body in requests if method == "POST"]
    assert "container_dagster_daemon" in [each["name"] for message in told for each in message["went"]]
    assert "/alive" in [path for _, path, _ in requests]
    assert "OVER (critical): container dagster-daemon is exited" in monitored.mails()


@long_form
def test_it_answers_whatever_is_down(monitored: Monitored) -> None:
    machine = monitored.machine
    assert all(monitored.up().values())
    machine.ssh("dagster-gce pause 'a test'; docker pause dagster-webserver; docker stop -t 20 dagster-postgres")
    wait(lambda: not monitored.up()["database"], 30, "the database is down", monitored.up)
    # The webserver's last answer counts for half a minute.
    wait(lambda: not monitored.up()["webserver"], 60, "the webserver is down", monitored.up)
    assert monitored.up()["engine"]
    assert {"webserver", "container_dagster_postgres"} <= set(monitored.problems())
    machine.ssh("systemctl stop docker.socket docker")
    wait(lambda: not monitored.up()["engine"], 40, "the engine is down", monitored.up)
    assert monitored.up()["machine"]
    assert "engine" in monitored.problems()
    machine.ssh("systemctl start docker; docker unpause dagster-webserver; docker start dagster-postgres")
    machine.ssh("dagster-gce resume")
    wait(lambda: all(monitored.up().values()) and not monitored.problems(), 120, "all is well", monitored.problems)
