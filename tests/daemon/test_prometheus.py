"""Two real daemons, scraped by a real Prometheus, and what is deployed beside it: alert rules and a dashboard.

Needs Debian's package ``prometheus``, which brings promtool.
"""

from __future__ import annotations

import json
import re
import subprocess
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.daemon.processes import ROOT, Daemon, mesh, until

pytestmark = pytest.mark.e2e
RULES = ROOT / "deploy" / "prometheus" / "decaf-node.rules.yml"
RULES_TEST = ROOT / "deploy" / "prometheus" / "decaf-node.rules.test.yml"
DASHBOARD = ROOT / "deploy" / "grafana" / "decaf-node.json"
SERVED = re.compile(r"Metrics for Prometheus are at http://(\S+)/metrics")
LISTENS = re.compile(r'msg="Listening on" address=(\S+)')
PATIENCE = 60.0
METRICS = {"metrics": "127.0.0.1:0"}
VARIABLES = {"$instance": ".*", "$__rate_interval": "1m", "$__range": "1h"}

Query = Callable[[str], list[dict[str, Any]]]


def promtool(*arguments: object, text: str = "") -> subprocess.CompletedProcess[str]:
    command = ["promtool", *map(str, arguments)]
    return subprocess.run(command, input=text, capture_output=True, text=True, timeout=240)


def place_of(daemon: Daemon) -> str:
    until(lambda: SERVED.search(daemon.log()) is not None)
    found = SERVED.search(daemon.log())
    assert found
    return found[1]


def scrape(daemon: Daemon) -> str:
    with urllib.request.urlopen(f"http://{place_of(daemon)}/metrics", timeout=30.0) as answer:
        return str(answer.read().decode())


@contextmanager
def prometheus(folder: Path, *targets: str) -> Iterator[Query]:
    """Run a Prometheus that scrapes the targets each second and evaluates the rules; give what answers queries."""
    config = folder / "prometheus.yml"
    scraped = {"job_name": "decaf-node", "static_configs": [{"targets": list(targets)}]}
    every = {"scrape_interval": "1s", "evaluation_interval": "1s"}
    config.write_text(json.dumps({"global": every, "rule_files": [str(RULES)], "scrape_configs": [scraped]}))
    log = folder / "prometheus.log"
    options = [f"--config.file={config}", f"--storage.tsdb.path={folder / 'data'}", "--web.listen-address=127.0.0.1:0"]
    with log.open("wb") as out:
        process = subprocess.Popen(["prometheus", *options], stdout=out, stderr=out, stdin=subprocess.DEVNULL)
    try:
        until(lambda: LISTENS.search(log.read_text()) is not None or process.poll() is not None, PATIENCE)
        listens = LISTENS.search(log.read_text())
        assert listens, log.read_text()
        base = f"http://{listens[1]}/api/v1"
        until(lambda: is_ready(f"http://{listens[1]}/-/ready"), PATIENCE)

        def ask(path: str) -> Any:
            with urllib.request.urlopen(f"{base}/{path}", timeout=30.0) as answer:
                return json.load(answer)["data"]

        def query(expression: str) -> list[dict[str, Any]]:
            if expression == "rules":
                return list(ask("rules")["groups"])
            return list(ask(f"query?{urllib.parse.urlencode({'query': expression})}")["result"])

        yield query
    finally:
        process.kill()
        process.wait()


def is_ready(place: str) -> bool:
    """Say whether it answers: it listens before it can."""
    try:
        with urllib.request.urlopen(place, timeout=30.0):
            return True
    except urllib.error.HTTPError as error:
        error.close()
        return False


def figure(query: Query, expression: str) -> int:
    """Return what one sample says. There is none for a while where a scrape has failed, as on a busy machine."""
    samples: list[dict[str, Any]] = []

    def came() -> bool:
        samples[:] = query(expression)
        return samples != []

    until(came, PATIENCE)
    return int(samples[0]["value"][1])


def expressions(dashboard: Any) -> list[str]:
    """All queries of the dashboard, its variables filled in."""
    found = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    for name, value in VARIABLES.items():
        found = [expression.replace(name, value) for expression in found]
    assert not any("$" in expression for expression in found), found
    return found


def test_promtool_finds_nothing_to_say_of_the_rules() -> None:
    checked = promtool("check", "rules", RULES)
    assert (checked.returncode, checked.stderr) == (0, ""), checked.stdout + checked.stderr
    tested = promtool("test", "rules", RULES_TEST)
    assert tested.returncode == 0, tested.stdout + tested.stderr


def test_every_alert_is_tested() -> None:
    alerts = set(re.findall(r"- alert: (\w+)", RULES.read_text()))
    raised = set(re.findall(r"alertname: (\w+),?\s+exp_alerts", RULES_TEST.read_text()))
    assert len(alerts) == 8
    assert raised == alerts


def test_a_real_prometheus_reads_two_daemons_and_answers_every_query(tmp_path: Path) -> None:
    with mesh() as make:
        a = make("a", monitor=METRICS, script={"value": 1.0, "drift": 0.1}).start()
        b = make("b", a, monitor=METRICS, script={"value": 2.0, "drift": 0.2}).start()
        for node in (a, b):
            node.until(lambda status: status.mixes >= 2, PATIENCE)
            checked = promtool("check", "metrics", text=scrape(node))
            assert (checked.returncode, checked.stdout + checked.stderr) == (0, "")
        with prometheus(tmp_path, place_of(a), place_of(b)) as query:
            until(lambda: len(query("decaf_node_neighbour_clip_ratio")) == 2, PATIENCE)
            before = a.status()
            until(lambda: len(query("decaf_node_info")) == 2, PATIENCE)
            got = {sample["metric"]["name"]: sample["metric"] for sample in query("decaf_node_info")}
            assert {name: labels["mesh"] for name, labels in got.items()} == {"a": "lab", "b": "lab"}
            assert got["a"]["node"] == before.node
            only_a = f'{{instance="{place_of(a)}"}}'
            until(lambda: figure(query, f"decaf_node_mixes_total{only_a}") > before.mixes, PATIENCE)
            assert figure(query, f"decaf_node_round{only_a}") <= a.status().round
            for expression in expressions(json.loads(DASHBOARD.read_text())):
                until(lambda it=expression: query(it) != [], PATIENCE)  # type: ignore[misc]
            rules = [rule for group in query("rules") for rule in group["rules"]]
            assert len(rules) == 9
            until(lambda: all(r["health"] == "ok" for g in query("rules") for r in g["rules"]), PATIENCE)
            assert not any(rule.get("alerts") for rule in rules if rule["name"] == "DecafNodeCertificateNearExpiry")


def test_in_plaintext_there_is_no_certificate_and_a_taken_port_is_said() -> None:
    with mesh() as make:
        a = make("a", authority=None, monitor=METRICS).start("--insecure")
        text = scrape(a)
        assert "decaf_node_certificate" not in text
        assert promtool("check", "metrics", text=text).returncode == 0
        b = make("b", authority=None, monitor={"metrics": place_of(a)}).start("--insecure")
        assert b.wait() == 75
        assert "[monitor.port-in-use]" in b.log()
        assert "Traceback" not in b.log()
        c = make("c", authority=None, monitor={"metrics": "0.0.0.0:0"}).start("--insecure")
        assert c.wait() == 77
        assert "[monitor.open-metrics]" in c.log()
