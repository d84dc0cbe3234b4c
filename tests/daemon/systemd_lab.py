"""The units under a systemd that is booted for it; prints a JSON line a scenario. Each builds on those before it.

Run as root in namespaces of its own, see ``network_lab.ALONE``: ``... python -m tests.daemon.systemd_lab``.
"""

from __future__ import annotations

import json
import re
import sqlite3
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

from tests.daemon.booted import LIBRARIES, PACKAGES, Machine, booted, python
from tests.daemon.trusted import Authority
from tests.training.tiny import make_bert, topic_rows, write_rows

UNIT, OTHER, OUTSIDE = "decaf-node", "decaf-node@lab", "decaf-node@outside"
OWN = "decaf-node@own"  # with a script as its trainer
GONE, CUDA, REAL = "decaf-node@gone", "decaf-node@cuda", "decaf-node@real"  # with the built-in trainer
SETTINGS = "/etc/decaf-node/config.toml"
MODEL, DATA = Path("/srv/model"), Path("/srv/rows.jsonl")
# What the tests change of the units: to wait less, and what is trained by whom; none of it is of the sandbox.
SOON = "[Service]\nWatchdogSec=8\nRestartSec=1\n"
QUICK = """Environment=DECAF_NODE__ROUND__STEPS=3 DECAF_NODE__STORE__SAVE_EVERY=0 DECAF_NODE__DISCOVERY__MDNS=false
"""
SCRIPTED = f"""{QUICK}Environment=DECAF_LAB_PROGRAM={PACKAGES[0]}/tests/daemon/command_scripted.py
Environment=DECAF_NODE__TRAINING__ARGUMENTS__SECONDS=0.3
"""
PORTS = "Environment=DECAF_NODE__LISTEN__PORT={} DECAF_NODE__LISTEN__ENROLMENT_PORT={}\n"
ELSEWHERE = """
port = {}
enrolment_port = {}
[discovery]
mdns = false
"""
REST = """
[lora]
r = 2
target_modules = ["query", "value"]
[round]
steps = 2
[store]
save_every = 0
"""

OWN_TRAINER = (
    "--setenv=HOME=/home/alice",
    f"--setenv=PYTHONPATH={':'.join(PACKAGES)}",
    f"--setenv=LD_LIBRARY_PATH={LIBRARIES}",
    "--setenv=DECAF_NODE_TRAINER_SOCKET=/run/decaf-node-own/trainer.sock",
    python(),
    f"{PACKAGES[0]}/tests/daemon/own_script.py",
    str(MODEL),
    "/home/alice/out",
)


def prepare(root: Path) -> None:
    """Put model, data and what the tests change of the units where the machine finds them."""
    make_bert(root / MODEL.relative_to("/"))
    write_rows(root / DATA.relative_to("/"), topic_rows())
    for place in (root / "srv", *(root / "srv").rglob("*")):
        place.chmod(0o755)
    (root / "home/ada/data").mkdir(parents=True)
    drop_in(root, UNIT, SOON + SCRIPTED + "BindReadOnlyPaths=/home/ada/data\n")
    drop_in(root, OTHER, SOON + SCRIPTED + PORTS.format(7533, 7534) + "TimeoutStopSec=2\n")
    drop_in(root, REAL, SOON)
    drop_in(root, OWN, SOON + QUICK + PORTS.format(7933, 7934) + "Environment=DECAF_NODE__TRAINING__TRAINER=external\n")
    key = "LoadCredential=key.pem:/etc/ssl/private/decaf-node.pem\n"
    drop_in(root, OUTSIDE, SOON + SCRIPTED + PORTS.format(7733, 7734) + key)


def drop_in(root: Path, unit: str, text: str) -> None:
    folder = root / f"etc/systemd/system/{unit}.service.d"
    folder.mkdir(parents=True)
    (folder / "lab.conf").write_text(text)


# --- as people use it ------------------------------------------------------------------------------------------------


def not_started_until_configured(machine: Machine) -> None:
    machine.do("systemctl", "start", UNIT)
    shown = machine.show(UNIT, "ActiveState", "ConditionResult")
    assert shown == {"ActiveState": "inactive", "ConditionResult": "no"}
    assert "ConditionPathExists=/etc/decaf-node/config.toml" in machine.journal(UNIT)


def init_as_root_hands_over(machine: Machine) -> None:
    said = machine.do("decaf-node", "init", "--mesh", "lab", "--model", MODEL, "--data", DATA, "--listen", "127.0.0.1")
    assert "systemctl enable --now decaf-node\n" in said, said
    assert owner(machine, SETTINGS) == "root decaf-node 640"
    assert owner(machine, "/var/lib/decaf-node/identity") == "decaf-node decaf-node 700"
    assert owner(machine, "/var/lib/decaf-node/identity/key.pem") == "decaf-node decaf-node 600"
    strangers = machine.do("find", "/var/lib/decaf-node", "!", "-user", "decaf-node")
    assert strangers == ""


def root_does_not_run_it_by_hand(machine: Machine) -> None:
    done = machine.run("decaf-node", "run")
    assert done.returncode == 77, done
    assert "[run.as-root]" in done.stderr


def ready_and_told_of(machine: Machine) -> None:
    machine.do("systemctl", "enable", "--now", UNIT)
    assert machine.value(UNIT, "ActiveState") == "active", "start returns when it is ready"
    line = r'Status: "training: round \d+, 0 neighbours, loss '
    machine.until(lambda: re.search(line, machine.do("systemctl", "status", UNIT)) is not None, "a status of rounds")
    before = machine.value(UNIT, "StatusText")
    machine.until(lambda: machine.value(UNIT, "StatusText") != before, "another status")


def the_state_is_its_own(machine: Machine) -> None:
    assert owner(machine, "/var/lib/decaf-node") == "decaf-node decaf-node 700"
    assert owner(machine, "/run/decaf-node") == "decaf-node decaf-node 750"
    assert owner(machine, f"/proc/{main_pid(machine)}").startswith("decaf-node decaf-node ")


def the_group_may_speak_to_it(machine: Machine) -> None:
    assert owner(machine, "/run/decaf-node/control.sock") == "decaf-node decaf-node 660"
    assert owner(machine, "/run/decaf-node/trainer.sock") == "decaf-node decaf-node 660"
    assert owner(machine, "/run/decaf-node/spool") == "decaf-node decaf-node 770"
    machine.do("useradd", "--create-home", "--groups", "decaf-node", "alice")
    machine.do("useradd", "--create-home", "bob")
    ask = ("decaf-node", "status", "--json")
    told = [json.loads(machine.do(*who, *ask))["node"] for who in ((), as_user("alice"))]
    assert told[0] == told[1]
    refused = machine.run(*as_user("bob"), *ask)
    assert refused.returncode == 77, refused
    assert json.loads(refused.stdout)["error"]["reason"] == "daemon.not-allowed"
    for who in ("alice", "bob"):
        assert machine.run(*as_user(who), "ls", "/var/lib/decaf-node").returncode != 0


def root_may_look_at_its_files(machine: Machine) -> None:
    """As ``decaf-node doctor`` does; all of it would load torch."""
    look = "\n".join(
        (
            "import os",
            "from decaf_node.daemon.doctor.files import look_at_files",
            "from decaf_node.places import find_places",
            "print([(found.mark, found.reason) for found in look_at_files(find_places(os.environ))])",
        )
    )
    found = machine.do("env", f"PYTHONPATH={':'.join(PACKAGES)}", f"LD_LIBRARY_PATH={LIBRARIES}", python(), "-c", look)
    assert found == f"{[('warning', 'files.other-user')] * 2}\n"


def the_sandbox_is_in_force(machine: Machine) -> None:
    process, inside = main_pid(machine), ("nsenter", "--mount", "--target", main_pid(machine))
    for place in ("/usr/written", "/etc/decaf-node/written", "/srv/written", "/opt/written"):
        done = machine.run(*inside, "touch", place)
        assert "Read-only file system" in done.stderr, (place, done)
    assert machine.do(*inside, "ls", "-A", "/home") == "ada\n", "homes are hidden but for what is shown"
    assert machine.do(*inside, "ls", "-A", "/home/ada") == "data\n"
    assert machine.do(*inside, "ls", "-A", "/tmp") == "", "it has a /tmp of its own"
    for pid in (process, trainer_pid(machine)):
        status = dict(line.split(":\t", 1) for line in machine.do("cat", f"/proc/{pid}/status").splitlines())
        assert status["NoNewPrivs"] == "1"
        assert status["Seccomp"] == "2"
        assert {int(status[name], 16) for name in ("CapEff", "CapPrm", "CapBnd", "CapAmb")} == {0}
        assert re.search(r"Max core file size +0 ", machine.do("cat", f"/proc/{pid}/limits"))
        assert machine.do("cat", f"/proc/{pid}/stat").rpartition(")")[2].split()[16] == "10", "it is nice"
    assert machine.do("readlink", f"/proc/{process}/ns/user") != machine.do("readlink", "/proc/1/ns/user")


def a_killed_trainer_is_the_daemons_to_restart(machine: Machine) -> None:
    process, restarts = main_pid(machine), machine.value(UNIT, "NRestarts")
    trainer = trainer_pid(machine)
    machine.do("kill", "-9", trainer)
    machine.until(lambda: trainer_pid(machine) not in ("0", trainer), "another trainer")
    machine.until(lambda: machine.value(UNIT, "StatusText").startswith("training: "), "it trains again")
    assert (main_pid(machine), machine.value(UNIT, "NRestarts")) == (process, restarts)


def a_loop_that_hangs_is_ended_by_the_watchdog(machine: Machine) -> None:
    saved, restarts = status(machine)["saved_round"], int(machine.value(UNIT, "NRestarts"))
    trainer = trainer_pid(machine)
    machine.do("kill", "-STOP", main_pid(machine))
    machine.until(lambda: int(machine.value(UNIT, "NRestarts")) == restarts + 1, "a restart")
    machine.until(lambda: machine.value(UNIT, "ActiveState") == "active", "it is up again")
    journal = machine.journal(UNIT)
    assert "Watchdog timeout" in journal
    assert "status=6/ABRT" in journal
    assert machine.run("kill", "-0", trainer).returncode != 0, "its trainer has gone with it"
    machine.until(lambda: status(machine)["round"] > saved, "it goes on from the saved round")


def a_killed_daemon_is_started_again(machine: Machine) -> None:
    restarts = int(machine.value(UNIT, "NRestarts"))
    machine.do("kill", "-9", main_pid(machine))
    machine.until(lambda: int(machine.value(UNIT, "NRestarts")) == restarts + 1, "a restart")
    machine.until(lambda: machine.value(UNIT, "StatusText").startswith("training: "), "it trains again")


def it_reads_its_settings_again(machine: Machine) -> None:
    process = main_pid(machine)
    settings = machine.root / SETTINGS.lstrip("/")
    good = settings.read_text()
    settings.write_text(f"{good}[round]\nno_such_key = 1\n")
    machine.do("systemctl", "reload", UNIT)
    machine.until(lambda: "unknown key" in machine.value(UNIT, "StatusText"), "what is wrong with the settings")
    assert machine.value(UNIT, "ActiveState") == "active"
    settings.write_text(good)
    machine.do("systemctl", "reload", UNIT)
    machine.until(lambda: "unknown key" not in machine.value(UNIT, "StatusText"), "all is well")
    machine.until(lambda: machine.value(UNIT, "SubState") == "running", "the reload is over")
    assert main_pid(machine) == process


def a_clean_stop_saves_the_round(machine: Machine) -> None:
    before, began = status(machine)["round"], time.monotonic()
    machine.do("systemctl", "stop", UNIT)
    took = time.monotonic() - began
    assert took < 9.5, took
    shown = machine.show(UNIT, "Result", "ExecMainStatus", "ActiveState")
    assert shown == {"Result": "success", "ExecMainStatus": "0", "ActiveState": "inactive"}, shown
    assert saved_round(machine, "decaf-node") >= before - 1
    assert machine.run("ls", "/run/decaf-node").returncode != 0, "nothing of it is left in /run"
    assert "systemctl enable --now decaf-node" in machine.run("decaf-node", "status").stderr


def a_second_node_by_the_template(machine: Machine) -> None:
    config = "/etc/decaf-node/lab/config.toml"
    said = machine.do(
        "decaf-node", "init", "--mesh", "other", "--config", config, "--model", MODEL, "--data", DATA,
        "--listen", "127.0.0.1",
    )  # fmt: skip
    assert "systemctl enable --now decaf-node@lab\n" in said, said
    machine.do("systemctl", "start", UNIT, OTHER)
    for place, kind in (("/var/lib/decaf-node-lab", "700"), ("/run/decaf-node-lab", "750")):
        assert owner(machine, place) == f"decaf-node decaf-node {kind}"
    one, other = status(machine), status(machine, "--config", config)
    assert (one["mesh"], other["mesh"]) == ("lab", "other")
    assert one["node"] != other["node"]
    machine.do("systemctl", "stop", OTHER)
    assert status(machine)["node"] == one["node"], "the first one runs on"
    machine.do("systemctl", "stop", UNIT)


# --- what a restart cannot help --------------------------------------------------------------------------------------


def a_stop_may_take_as_long_as_the_settings_say(machine: Machine) -> None:
    """Longer than TimeoutStopSec, which is 2 s here: the trainer hangs, and limits.stop is 9 s."""
    machine.do("systemctl", "start", OTHER)
    config = ("--config", "/etc/decaf-node/lab/config.toml")
    machine.until(lambda: status(machine, *config)["trainer"]["state"] == "ready", "its trainer", OTHER)
    machine.do("kill", "-STOP", str(status(machine, *config)["trainer"]["pid"]))
    began = time.monotonic()
    machine.do("systemctl", "stop", OTHER)
    assert time.monotonic() - began > 5.0
    assert machine.value(OTHER, "Result") == "success"
    assert "could not be saved in time" in machine.journal(OTHER)


def a_trainer_of_ones_own(machine: Machine) -> None:
    """Of a user in the group, as docs/operating.md has it: it goes on from what it has saved, and enters no state."""
    config, state = ("--config", "/etc/decaf-node/own/config.toml"), "/var/lib/decaf-node-own"
    given = ("--model", MODEL, "--data", DATA, "--listen", "127.0.0.1")
    machine.do("decaf-node", "init", "--mesh", "own", *config, *given)
    machine.do("systemctl", "start", OWN)
    assert machine.value(OWN, "StatusText") == "waiting for a trainer to connect"

    def train(unit: str) -> bool:
        """Let it save two rounds; say whether it went on from saved ones."""
        until = status(machine, *config)["saved_round"] + 2
        machine.do("systemd-run", "--quiet", f"--unit={unit}", "--uid=alice", *OWN_TRAINER)
        machine.until(lambda: status(machine, *config)["saved_round"] >= until, "its rounds are saved", unit)
        assert owner(machine, f"/proc/{status(machine, *config)['trainer']['pid']}").startswith("alice ")
        machine.do("systemctl", "stop", unit)
        machine.until(lambda: status(machine, *config)["phase"] == "starting", "it waits for the next", OWN)
        return "goes on from a saved adapter" in machine.journal(unit)

    assert [train("first-life"), train("second-life")] == [False, True]
    assert machine.do("find", state, "!", "-user", "decaf-node") == ""
    assert machine.run(*as_user("alice"), "ls", state).returncode != 0
    machine.do("systemctl", "stop", OWN)
    assert machine.value(OWN, "Result") == "success"


def settings_that_cannot_be_read(machine: Machine) -> None:
    machine.do("chown", "root:root", SETTINGS)
    machine.do("chmod", "600", SETTINGS)
    gives_up(machine, UNIT, 78, "settings.unreadable")
    machine.do("chown", "root:decaf-node", SETTINGS)
    machine.do("chmod", "640", SETTINGS)
    settings = machine.root / SETTINGS.lstrip("/")
    good = settings.read_text()
    settings.write_text("rounds = [")
    gives_up(machine, UNIT, 78, "settings.not-toml")
    settings.write_text(good)
    machine.do("systemctl", "start", UNIT)
    machine.do("systemctl", "stop", UNIT)


def three_nodes_with_torch_start(machine: Machine) -> None:
    """All at once, as each takes its time: one has no model, one is to use a GPU, and one is as it should be."""
    for number, unit in enumerate((GONE, CUDA, REAL)):
        config = Path("/etc/decaf-node", unit.partition("@")[2], "config.toml")
        given = ("--config", config, "--model", MODEL, "--data", DATA, "--listen", "127.0.0.1")
        said = machine.do("decaf-node", "init", "--mesh", "lab", *given)
        assert "sees no home directories" not in said, said
        written = machine.root / config.relative_to("/")
        device = '\ndevice = "cuda"' if unit == CUDA else ""
        elsewhere = ELSEWHERE.format(7633 + 10 * number, 7634 + 10 * number)
        text = written.read_text().replace("[model]\n", f'{elsewhere}[model]{device}\npooling = "mean"\n') + REST
        written.write_text(text.replace(f'"{MODEL}"', '"/srv/nowhere"') if unit == GONE else text)
    machine.do("systemctl", "start", GONE, CUDA, REAL)
    assert machine.value(REAL, "StatusText") in ("waiting for the trainer to start", "loading the model")


def a_model_that_is_gone(machine: Machine) -> None:
    has_given_up(machine, GONE, 65, "model.missing")


def a_gpu_that_is_not_there(machine: Machine) -> None:
    has_given_up(machine, CUDA, 78, "model.no-cuda")


def a_real_trainer_in_the_sandbox(machine: Machine) -> None:
    config = ("--config", "/etc/decaf-node/real/config.toml")
    machine.until(lambda: status(machine, *config)["saved_round"] >= 2, "torch trains and saves", REAL, 90.0)
    assert re.match(r"\w+: round \d+, 0 neighbours, loss ", machine.value(REAL, "StatusText"))
    assert machine.value(REAL, "NRestarts") == "0"
    machine.do("systemctl", "stop", REAL)
    assert machine.value(REAL, "Result") == "success"


# --- other ways to run it --------------------------------------------------------------------------------------------


def a_key_that_systemd_keeps(machine: Machine) -> None:
    papers, folder = Authority("outside").papers(), machine.root / "etc/decaf-node/outside"
    folder.mkdir()
    (folder / "ca.pem").write_bytes(pem(papers.authorities))
    (folder / "certificate.pem").write_bytes(pem(papers.chain))
    key = machine.root / "etc/ssl/private/decaf-node.pem"
    key.write_bytes(papers.key_pem)
    key.chmod(0o600)
    (folder / "config.toml").write_text(
        f'[mesh]\nname = "outside"\n[model]\npath = "{MODEL}"\n[data]\ntrain = ["{DATA}"]\n[security]\n'
        f'ca = "ca.pem"\ncertificate = "certificate.pem"\nkey = "/run/credentials/{OUTSIDE}.service/key.pem"\n'
    )
    machine.do("systemctl", "start", OUTSIDE)
    told = status(machine, "--config", "/etc/decaf-node/outside/config.toml")
    assert told["node"] == papers.node
    machine.do("systemctl", "stop", OUTSIDE)


def a_node_of_a_user(machine: Machine) -> None:
    user = machine.do("id", "--user", "alice").strip()
    runtime = f"/run/user/{user}"
    machine.do("systemctl", "start", f"user@{user}")
    home = machine.root / "home/alice/.config"
    drop = home / "systemd/user/decaf-node.service.d"
    drop.mkdir(parents=True)
    (drop / "lab.conf").write_text(SOON + SCRIPTED + PORTS.format(7833, 7834))
    machine.do("chown", "-R", "alice:", "/home/alice")
    ours = (*as_user("alice"), "env", "HOME=/home/alice", f"XDG_RUNTIME_DIR={runtime}")
    given = ("--config", "/home/alice/.config/decaf-node/config.toml")
    said = machine.do(*ours, "decaf-node", "init", "--mesh", "home", "--model", MODEL, "--data", DATA, *given)
    assert f"decaf-node run --config {given[1]}\n" in said, said
    machine.do(*ours, "systemctl", "--user", "daemon-reload")
    machine.do(*ours, "systemctl", "--user", "start", UNIT)
    told = json.loads(machine.do(*ours, "decaf-node", "status", "--json"))
    assert told["mesh"] == "home"
    shown = machine.do(*ours, "systemctl", "--user", "show", UNIT, "--property=StatusText")
    assert shown.startswith("StatusText="), shown
    machine.do(*ours, "systemctl", "--user", "stop", UNIT)
    ended = machine.do(*ours, "systemctl", "--user", "show", UNIT, "--property=Result")
    assert ended == "Result=success\n"


SCENARIOS: tuple[Callable[[Machine], None], ...] = (
    not_started_until_configured,
    init_as_root_hands_over,
    root_does_not_run_it_by_hand,
    ready_and_told_of,
    the_state_is_its_own,
    the_group_may_speak_to_it,
    root_may_look_at_its_files,
    the_sandbox_is_in_force,
    a_killed_trainer_is_the_daemons_to_restart,
    a_loop_that_hangs_is_ended_by_the_watchdog,
    a_killed_daemon_is_started_again,
    it_reads_its_settings_again,
    a_clean_stop_saves_the_round,
    a_second_node_by_the_template,
    a_stop_may_take_as_long_as_the_settings_say,
    a_trainer_of_ones_own,
    settings_that_cannot_be_read,
    three_nodes_with_torch_start,
    a_model_that_is_gone,
    a_gpu_that_is_not_there,
    a_real_trainer_in_the_sandbox,
    a_key_that_systemd_keeps,
    a_node_of_a_user,
)


# --- what they share -------------------------------------------------------------------------------------------------


def owner(machine: Machine, place: str) -> str:
    return machine.do("stat", "--format=%U %G %a", place).strip()


def as_user(name: str) -> tuple[str, ...]:
    return ("runuser", "--user", name, "--")


def main_pid(machine: Machine) -> str:
    return machine.value(UNIT, "MainPID")


def status(machine: Machine, *options: str) -> Any:
    return json.loads(machine.do("decaf-node", "status", "--json", *options))


def trainer_pid(machine: Machine) -> str:
    return str(status(machine)["trainer"]["pid"])


def saved_round(machine: Machine, folder: str) -> int:
    path = machine.root / "var/lib" / folder / "rounds.sqlite"
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as database:
        return int(database.execute("SELECT max(round) FROM saved").fetchone()[0])


def pem(certificates: Any) -> bytes:
    from cryptography.hazmat.primitives.serialization import Encoding

    return b"".join(certificate.public_bytes(Encoding.PEM) for certificate in certificates)


def gives_up(machine: Machine, unit: str, code: int, reason: str) -> None:
    """It does not start, and not because it is tried again and again."""
    assert machine.run("systemctl", "start", unit).returncode != 0
    has_given_up(machine, unit, code, reason)


def has_given_up(machine: Machine, unit: str, code: int, reason: str) -> None:
    """Wait until it has ended with this exit code; it says why, and is not started again."""
    machine.until(lambda: machine.value(unit, "ActiveState") == "failed", "it gives up", unit, 90.0)
    shown = machine.show(unit, "ExecMainStatus", "NRestarts", "StatusText")
    assert (shown["ExecMainStatus"], shown["NRestarts"]) == (str(code), "0"), shown
    assert f"[{reason}]" in shown["StatusText"], shown
    assert f"[{reason}]" in machine.journal(unit)
    machine.do("systemctl", "reset-failed", unit)


def main() -> None:
    wanted = sys.argv[1:]
    with tempfile.TemporaryDirectory(prefix="decaf-systemd-", dir="/tmp") as folder:
        began = time.monotonic()
        with booted(Path(folder), prepare) as machine:
            tell("boot", began, "")
            for scenario in SCENARIOS:
                if wanted and scenario.__name__ not in wanted:
                    continue
                began, error = time.monotonic(), ""
                try:
                    scenario(machine)
                except Exception:  # noqa: BLE001 - each is judged by itself
                    error = traceback.format_exc()
                tell(scenario.__name__, began, error)


def tell(scenario: str, began: float, error: str) -> None:
    seconds = round(time.monotonic() - began, 1)
    print(json.dumps({"scenario": scenario, "seconds": seconds, "error": error}), flush=True)


if __name__ == "__main__":
    main()
