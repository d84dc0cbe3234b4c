"""The page of a real daemon of a real mesh, in a real Chromium: its values, end and return, and who may not read it.

Needs Debian's packages ``chromium`` and ``chromium-driver``.
"""

from __future__ import annotations

import http.client
import http.server
import json
import re
import signal
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from itertools import islice
from typing import Any

import pytest
from selenium.webdriver import ActionChains, Chrome, Keys

from decaf_node.cli.words import NOTHING, number, percent, seconds, short_id, size
from tests.browser import chromium, sized
from tests.daemon.processes import Daemon, mesh, until

pytestmark = pytest.mark.e2e
SERVED = re.compile(r"The page of this node is at (\S+)\.\n")
PATIENCE = 60.0
PACE = {"seconds": 0.2}
EVIL = "<img src=x onerror=document.title='taken'>"
SHOWN = """
const text = (node) => node.textContent;
const table = (id) => [...document.querySelectorAll(`#${id} tbody tr`)].map((row) => [row.dataset.key,
  Object.fromEntries([...row.cells].map((cell) => [cell.dataset.column, text(cell)]))]);
return {
  reach: document.body.dataset.reach,
  figures: Object.fromEntries([...document.querySelectorAll("#glance div")].map((each) =>
    [each.dataset.figure, [...each.querySelectorAll("dd")].map(text)])),
  members: Object.fromEntries(table("members")),
  rounds: Object.fromEntries(table("rounds")),
  alerts: [...document.querySelectorAll(".alert")].map((alert) =>
    [...alert.querySelectorAll(".sentence, .remedy")].map(text).join(" ").trim()),
  weights: [...document.querySelectorAll("#graph .weights text")].map(text).sort(),
  nodes: [...document.querySelectorAll("#graph .node")].map((node) => node.getAttribute("aria-label")),
  charts: [...document.querySelectorAll(".canvas")].map((chart) => chart.getAttribute("aria-label")),
  curves: document.querySelectorAll(".canvas canvas").length,
};
"""


class Lab:
    """A mesh of three that mix and one that cannot; ``a`` serves its page."""

    def __init__(self, make: Any) -> None:
        self.a: Daemon = make(
            "a", monitor={"dashboard": True, "dashboard_port": 0}, script={"value": 1.0, **PACE}
        ).start()
        until(lambda: SERVED.search(self.a.log()) is not None)
        for name, script in (
            (EVIL, {"value": 2.0, **PACE}),
            ("c", {"value": 4.0, **PACE}),
            ("odd", {"schema": "f" * 64}),
        ):
            make(f"n{len(name)}", self.a, node={"name": name}, script=script).start()
        self.a.until(lambda status: status.mixes >= 3 and status.degree == 2, PATIENCE)

    @property
    def address(self) -> str:
        return SERVED.findall(self.a.log())[-1]  # type: ignore[no-any-return]

    @property
    def port(self) -> int:
        return int(self.address.rstrip("/").rpartition(":")[2])


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with mesh() as make:
        yield Lab(make)


@pytest.fixture(scope="module")
def browser() -> Iterator[Chrome]:
    with chromium("--host-resolver-rules=MAP rebound.example 127.0.0.1") as opened:
        yield opened


def look(browser: Chrome) -> dict[str, Any]:
    return browser.execute_script(SHOWN)  # type: ignore[no-any-return]


def round_shown(browser: Chrome) -> int:
    return int(look(browser)["figures"]["round"][0].replace(",", ""))


def visit(browser: Chrome, lab: Lab, width: int = 1200, height: int = 900, scheme: str = "light") -> None:
    """Open the page and wait until all of it is drawn."""
    complaints(browser)
    sized(browser, width, height, scheme)
    browser.get(lab.address)

    def drawn() -> bool:
        shown = look(browser)
        return shown["curves"] == 4 and len(shown["nodes"]) == 4 and len(shown["rounds"]) > 0

    until(drawn, PATIENCE)


def complaints(browser: Chrome) -> list[str]:
    return [entry["message"] for entry in browser.get_log("browser")]  # type: ignore[no-untyped-call]


def known(figure: str) -> str:
    """The page has a longer dash for what is not known than the terminal."""
    return "–" if figure == NOTHING else figure


def expected(lab: Lab) -> dict[str, Any]:
    """What the page is to show of what the API tells; what changes all the time is left out."""
    with lab.a.client() as client:
        status, peers, rounds, alerts = client.status(), client.peers(), client.rounds(limit=12), client.alerts()
    last = status.last_round
    assert last is not None
    mixed = f"norm {number(last.norm)}, round {last.round:,}"
    return {
        "figures": {
            "round": [f"{status.round:,}", f"paused: {status.why_paused}" if status.why_paused else status.phase],
            "consensus distance": [
                known(number(last.consensus_distance)),
                mixed if last.edges else f"no neighbour mixed in round {last.round:,}",
            ],
            "sent": [size(status.sent_bytes), f"{size(status.received_bytes)} received, since the start"],
            "saved": [f"round {status.saved_round:,}", f"{status.mixes:,} mixes"],
        },
        "members": {
            peer.node: {
                "name": peer.name,
                "node": short_id(peer.node),
                "state": peer.state + (", neighbour" if peer.neighbour else ""),
                "weight": known(number(peer.weight, 2)),
                "distance": known(number(peer.distance)),
                "clip": known(number(peer.clip_factor, 2)),
                "mixes": f"{peer.mixes:,}",
                "address": peer.addresses[0],
            }
            for peer in peers
        },
        "rounds": {
            f"{row.round}": {
                "loss": number(row.loss),
                "held-out loss": number(row.evaluation_loss),
                "accuracy": percent(row.evaluation_accuracy),
                "edges": f"{len(row.edges)}",
                "distance": known(number(row.consensus_distance)),
                "sent": size(row.sent_bytes),
                "received": size(row.received_bytes),
                "train": seconds(row.train_seconds),
                "exchange": seconds(row.exchange_seconds),
                "saved": "yes" if row.saved else "not yet",
            }
            for row in rounds
        },
        "alerts": [alert.words for alert in alerts],
        "weights": sorted(
            f"{number(peer.weight, 2)} · d {number(peer.distance, 2)}" for peer in peers if peer.weight is not None
        ),
    }


def of_interest(shown: dict[str, Any], wanted: dict[str, Any]) -> dict[str, Any]:
    """Return the part of what is shown that ``wanted`` speaks of."""
    tables = {
        table: {
            key: {column: row[column] for column in wanted[table].get(key, row)} for key, row in shown[table].items()
        }
        for table in ("members", "rounds")
    }
    figures = {name: shown["figures"][name] for name in wanted["figures"]}
    return tables | {"figures": figures, "alerts": shown["alerts"], "weights": shown["weights"]}


def test_it_shows_what_the_api_tells_and_goes_on_by_itself(lab: Lab, browser: Chrome) -> None:
    visit(browser, lab)
    with lab.a.client() as client:
        client.pause()
        lab.a.until(lambda status: status.phase == "paused")
        until(lambda: of_interest(look(browser), expected(lab)) == expected(lab), PATIENCE)
        shown, paused_in = look(browser), lab.a.status().round
        assert len(shown["alerts"]) == 1
        assert any("a neighbour, weight 0.33" in words for words in shown["nodes"])
        assert all(" in round " in words for words in shown["charts"])
        client.resume()
    until(lambda: round_shown(browser) > paused_in + 2, PATIENCE)
    assert complaints(browser) == []


def first_events(lab: Lab, count: int, **headers: str) -> list[tuple[str, dict[str, Any]]]:
    """Return ID and document of the first events that a client of the stream hears."""
    with closing(http.client.HTTPConnection("127.0.0.1", lab.port, timeout=PATIENCE)) as connection:
        connection.request("GET", "/events", headers=headers)
        lines = iter(connection.getresponse().readline, b"")
        pairs = zip(*[filter(re.compile(b"id: |data: ").match, lines)] * 2, strict=False)
        told = [(one.decode()[4:].strip(), json.loads(other[6:])) for one, other in islice(pairs, count)]
    return told


def test_who_says_what_it_heard_last_goes_on_from_there(lab: Lab) -> None:
    ((heard, state), (_, change)) = first_events(lab, 2)
    assert (state["event"], heard) == ("state", f"{state['instance']}:{state['sequence']}")
    assert change["sequence"] == state["sequence"] + 1
    (_, again) = first_events(lab, 1, **{"Last-Event-ID": heard})[0]
    assert again == change
    (_, other) = first_events(lab, 1, **{"Last-Event-ID": "another:3"})[0]
    assert other["event"] == "state"


def test_a_name_that_another_device_chose_is_text(lab: Lab, browser: Chrome) -> None:
    visit(browser, lab)
    assert EVIL in [row["name"] for row in look(browser)["members"].values()]
    assert browser.execute_script("return document.querySelectorAll('main img, main script').length") == 0
    assert browser.title.startswith("a · round ")
    assert complaints(browser) == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_phone_shows_it_without_scrolling_sideways(lab: Lab, browser: Chrome, scheme: str) -> None:
    visit(browser, lab, 360, 740, scheme)
    wide = "return [document.documentElement.scrollWidth, document.documentElement.dataset.theme]"
    assert browser.execute_script(wide) == [360, scheme]
    over = (
        "return [...document.querySelectorAll('body *')].filter((each) => !each.closest('.scroll, svg, .skip')"
        " && each.getBoundingClientRect().right > 360).map((each) => each.outerHTML.slice(0, 80))"
    )
    assert browser.execute_script(over) == []


def test_all_of_it_is_reached_by_keyboard(lab: Lab, browser: Chrome) -> None:
    visit(browser, lab)
    until(lambda: browser.execute_script("return !document.getElementById('more').hidden"), PATIENCE)
    stops = []
    for _ in range(10):
        ActionChains(browser).send_keys(Keys.TAB).perform()
        stop, seen = browser.execute_script(
            "const it = document.activeElement, style = getComputedStyle(it), dot = it.querySelector('circle');"
            "return [it.id || it.className.baseVal || it.className,"
            " style.outlineStyle !== 'none' || (dot !== null && getComputedStyle(dot).strokeWidth === '4px')]"
        )
        assert seen, f"{stop} has no visible focus"
        stops.append(stop)
    nodes = [stop for stop in stops if stop.startswith("node ")]
    assert len(nodes) == 4
    others = [stop for stop in stops if not stop.startswith("node ")]
    assert others == ["skip", "theme", "span", "members-scroll", "rounds-scroll", "more"]


def test_light_or_dark_can_be_chosen_and_is_remembered(lab: Lab, browser: Chrome) -> None:
    theme = "return document.documentElement.dataset.theme"
    visit(browser, lab, scheme="dark")
    assert browser.execute_script(theme) == "dark"
    browser.execute_script("document.getElementById('theme').focus()")
    ActionChains(browser).send_keys(Keys.ENTER).perform()
    assert browser.execute_script(theme) == "light"
    visit(browser, lab, scheme="dark")
    assert browser.execute_script(theme) == "light"
    browser.execute_script("localStorage.clear()")


ROUNDED = """
const [values, done] = arguments;
import("/words.js").then(({ number, percent, seconds, size }) => done(values.map((value) =>
  [number(value), number(value, 2), percent(value), seconds(value), size(value)])));
"""


def test_numbers_are_those_of_the_command_line(lab: Lab, browser: Chrome) -> None:
    ties = [count / 2**power for power in range(12) for count in (1, 3, 5, 7, 25, 125, 1001)]
    near = [count / 10**power for power in range(8) for count in (1, 15, 25, 1005, 2675, 99950)]
    values = [0.0, *ties, *near]
    browser.get(lab.address)
    wanted = [[number(each), number(each, 2), percent(each), seconds(each), size(each)] for each in values]
    assert browser.execute_async_script(ROUNDED, values) == wanted


LOOKED_AT_TWICE = """
const done = arguments[0], place = document.createElement("div"), words = document.createElement("p");
const alert = { place: "disk", id: "disk.full", severity: "warning", since: 0, sentence: "2 GB free.", remedy: "" };
import("/alerts.js").then(({ showAlerts }) => {
  const show = (alerts) => {
    showAlerts(place, words, { alerts, peers: [] });
    return [place.children[0], words.textContent, place.querySelector(".sentence")?.textContent];
  };
  const none = show([]), first = show([alert]), again = show([{ ...alert, sentence: "1 GB free." }]);
  const other = show([{ ...alert, place: "mix" }]);
  done([none[1], again[0] === first[0], again[1] === first[1], again[2], other[0] === again[0], show([])[1]]);
});
"""


def test_an_alert_is_read_aloud_once_while_its_numbers_change(lab: Lab, browser: Chrome) -> None:
    browser.get(lab.address)
    well = "Nothing is wrong."
    assert browser.execute_async_script(LOOKED_AT_TWICE) == [well, True, True, "1 GB free.", False, well]


STARTED_AGAIN = """
const done = arguments[0];
import("/model.js").then(({ Model }) => {
  const model = new Model(() => {}), now = () => model.now().includes(", for ");
  const state = (instance, status) => model.hear({ event: "state", instance, state: { status, peers: [] } });
  state("one", { round: 8, phase: "training" });
  model.hear({ event: "phase", phase: { round: 9, phase: "training" }, time: 1 });
  model.hear({ event: "round", round: { round: 1e9 } });
  const seen = [now(), model.rounds.length];
  state("one", { round: 10, phase: "training" });
  seen.push(now(), model.rounds.length);
  state("two", { round: 9, phase: "training" });
  done([...seen, now(), model.rounds.length]);
});
"""


def test_it_forgets_what_a_node_that_has_started_again_has_forgotten(lab: Lab, browser: Chrome) -> None:
    browser.get(lab.address)
    assert browser.execute_async_script(STARTED_AGAIN) == [True, 1, False, 1, False, 0]


def test_more_pages_are_open_than_a_browser_has_connections(lab: Lab, browser: Chrome) -> None:
    first = browser.current_window_handle
    visit(browser, lab)
    for _ in range(6):
        browser.switch_to.new_window("tab")
        browser.get(lab.address)
        until(lambda: look(browser)["reach"] == "live", PATIENCE)
    for other in set(browser.window_handles) - {first}:
        browser.switch_to.window(other)
        browser.close()
    browser.switch_to.window(first)
    before = lab.a.status().round
    until(lambda: round_shown(browser) > before, PATIENCE)


ATTEMPTS = """
const [node, done] = arguments, tried = {};
const noted = (name, act) => act().then((it) => { tried[name] = it; }, () => { tried[name] = "refused"; });
const loaded = (tag, path) => new Promise((yes, no) => {
  const it = document.createElement(tag);
  it.onload = () => yes("loaded");
  it.onerror = no;
  it.src = node + path;
  document.body.append(it);
});
const stream = new Promise((yes, no) => {
  const it = new EventSource(node + "events");
  it.onmessage = () => yes("heard");
  it.onerror = () => { it.close(); no(); };
});
Promise.all([
  noted("fetch", () => fetch(node + "status").then((answer) => answer.text())),
  noted("opaque", () => fetch(node + "status", { mode: "no-cors" }).then((answer) => answer.text())),
  noted("post", () => fetch(node + "status", { method: "POST", body: "x" }).then((answer) => answer.text())),
  noted("events", () => stream),
  noted("script", () => loaded("script", "main.js")),
  noted("image", () => loaded("img", "icon.svg")),
]).then(() => done(tried));
"""


@contextmanager
def elsewhere() -> Iterator[int]:
    """Serve a page of another origin, at this port."""

    class Page(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.end_headers()
            self.wfile.write(b"<!doctype html><body>elsewhere")

        def log_message(self, format: str, *args: Any) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Page) as server:
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        yield server.server_port
        server.shutdown()


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_a_page_elsewhere_reads_nothing(lab: Lab, browser: Chrome, host: str) -> None:
    with elsewhere() as port:
        browser.get(f"http://{host}:{port}/")
        tried = browser.execute_async_script(ATTEMPTS, lab.address)
        assert tried.pop("opaque") in ("", "refused")
        assert tried == dict.fromkeys(("fetch", "post", "events", "script", "image"), "refused")
        browser.execute_script(
            "const it = document.createElement('iframe'); it.src = arguments[0]; document.body.append(it)", lab.address
        )
        until(lambda: any(lab.address.rstrip("/") in each for each in complaints(browser)), PATIENCE)
        browser.switch_to.frame(0)
        assert "Mesh" not in browser.page_source


def test_the_page_sends_nothing_elsewhere(lab: Lab, browser: Chrome) -> None:
    with elsewhere() as port:
        visit(browser, lab)
        for place in (f"http://127.0.0.1:{port}/", lab.address.replace("127.0.0.1", "localhost")):
            tried = browser.execute_async_script(
                "const [place, done] = arguments;"
                "fetch(place, { mode: 'no-cors' }).then(() => done('sent'), () => done('refused'))",
                place,
            )
            assert tried == "refused"
        assert sum("Content Security Policy" in words for words in complaints(browser)) >= 2


def test_a_name_of_another_that_leads_here_is_refused(lab: Lab, browser: Chrome) -> None:
    browser.get(f"http://rebound.example:{lab.port}/")
    assert json.loads(browser.find_element("tag name", "body").text)["error"]["reason"] == "monitor.elsewhere"


def test_it_says_that_the_node_is_gone_and_goes_on_when_it_is_back(lab: Lab, browser: Chrome) -> None:
    visit(browser, lab)
    before = lab.a.status()
    assert complaints(browser) == []
    lab.a.configure({"monitor": {"dashboard": True, "dashboard_port": lab.port}, "training.arguments": PACE})
    lab.a.signal(signal.SIGTERM)
    until(lambda: look(browser)["reach"] == "lost", PATIENCE)
    said = browser.find_element("id", "connection").text
    assert said.startswith("connection lost, trying again (as of ")
    assert lab.a.wait() == 0
    assert browser.find_element("id", "connection").text == said, "when it was heard last does not move"
    lab.a.start()
    until(lambda: look(browser)["reach"] == "live", PATIENCE)
    after = lab.a.until(lambda status: status.round > before.round + 1, PATIENCE)
    assert after.instance != before.instance
    until(lambda: round_shown(browser) >= after.round, PATIENCE)
    assert browser.find_element("id", "connection").text == "live"
    others = [words for words in complaints(browser) if "ERR_" not in words]
    assert others == [], "but that it could not connect meanwhile"
