"""Broken set-ups between hosts on one machine; prints what the doctor says of each: a JSON line, set-up by set-up.

Run as root in a namespace of its own, see ``network_lab``: ``... python -m tests.daemon.doctor_lab``.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from decaf_node.daemon.doctor.running import ask_daemon
from decaf_node.daemon.papers import CERTIFICATE
from decaf_node.settings import ModelSection
from decaf_node.training.base import base_fingerprint
from tests.cli.command import PROGRAM
from tests.daemon.network_lab import PORT, build, run, within
from tests.daemon.processes import ROOT, Daemon, mesh, until
from tests.daemon.trusted import Authority
from tests.training.tiny import LABELS, make_bert, topic_rows, write_rows

NOTHING: Mapping[str, str] = {}
MINUTE = 60.0
DAY = 86400.0
FAKETIME = {"FAKETIME_DONT_FAKE_MONOTONIC": "1", "NO_FAKE_STAT": "1"}
HOSTS = {"a": 1, "b": 2, "c": 3, "d": 4, "e": 5}


class Lab:
    """A mesh of two, a and b; on c, d and e there are others for a while. All have one base model."""

    def __init__(self, make: Callable[..., Daemon], folder: Path) -> None:
        self._make = make
        self.folder = folder
        self.model = make_bert(folder / "model")
        self.data = write_rows(folder / "rows.jsonl", topic_rows())
        self.base = base_fingerprint(ModelSection(path=self.model), folder / "digests")
        self.authority = Authority()
        self.a = self.member("a", mesh={"peers": [self.address("b")]})
        self.b = self.member("b")
        self.c = self.member("c")
        self._copies = 0

    def member(self, host: str, name: str = "", script: dict[str, Any] | None = None, **sections: Any) -> Daemon:
        """Return a daemon on the host, not started yet; the doctor finds other settings for it: see ``settings``."""
        node = self._make(
            name or host,
            authority=self.authority,
            script={"base": self.base, "seconds": 1.0, **(script or {})},
            **{**self.sections(host), **sections},
        )
        node.within = within(host)
        return node

    def address(self, host: str) -> str:
        return f"10.77.0.{HOSTS[host]}:{PORT}"

    def sections(self, host: str) -> dict[str, Any]:
        return {
            "listen": {"address": f"10.77.0.{HOSTS[host]}", "port": PORT},
            "discovery": {"mdns": True, "refresh": 1.0},
            "model": {"path": str(self.model)},
            "data": {"train": [str(self.data)]},
        }

    def settings(self, host: str, whole: bool = False, **sections: Any) -> Path:
        """Write settings for the doctor. whole: the trainer is built in, so that model and data are looked at."""
        self._copies += 1
        model = {"path": str(self.model), "task": "sequence-classification", "pooling": "mean", "labels": list(LABELS)}
        ours = {
            **self.sections(host),
            "model": model,
            "data": {"train": [str(self.data)], "max_length": 16},
            "training": {"trainer": "built-in" if whole else "external"},
        }
        merged = {key: {**ours.get(key, {}), **sections.get(key, {})} for key in {**ours, **sections}}
        return Daemon(self.folder, f"settings-{self._copies}", merged, None).config

    def copy_of(self, node: Daemon, *, authority: Authority | None = None, **admitted: Any) -> Path:
        """Return a copy of the node's state without its daemon; with ``authority`` another certificate is in it."""
        self._copies += 1
        state = self.folder / f"state-{self._copies}"
        shutil.copytree(node.state, state, ignore=shutil.ignore_patterns("scratch", "*-wal"))
        if authority is not None:
            for name in (CERTIFICATE, "ca.pem"):
                (state / "identity" / name).unlink()
            authority.admit(state, **admitted)
        return state

    def doctor(
        self, host: str, config: Path, state: Path, runtime: Path | None = None, environ: Mapping[str, str] = NOTHING
    ) -> Any:
        """Run the doctor there; return what it prints."""
        places = ["--config", config, "--state", state, "--runtime", runtime or self.folder / "no-daemon-here"]
        command = [*within(host), *PROGRAM, "doctor", *map(str, places), "--json"]
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            timeout=2 * MINUTE,
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT), **environ},
            check=False,
        )
        try:
            document = json.loads(done.stdout)
        except ValueError:
            raise AssertionError(done.stdout + done.stderr) from None
        assert done.returncode == document["exit_code"], done
        return document


Setup = Callable[[Lab], Any]


# --- without a daemon, on a copy of c's state: each by itself ---------------------------------------------------------


def no_daemon_here(lab: Lab) -> Any:
    return lab.doctor("c", lab.settings("c"), lab.copy_of(lab.c))


def an_unknown_key(lab: Lab) -> Any:
    return lab.doctor("c", lab.settings("c", round={"stepps": 3}), lab.copy_of(lab.c))


def a_key_that_others_can_read(lab: Lab) -> Any:
    state = lab.copy_of(lab.c)
    (state / "identity" / "key.pem").chmod(0o644)
    return lab.doctor("c", lab.settings("c"), state)


def a_state_folder_that_is_read_only(lab: Lab) -> Any:
    state = lab.copy_of(lab.c)
    with mounted(state, "--bind", str(state)):
        run("mount", "-o", "remount,bind,ro", str(state))
        return lab.doctor("c", lab.settings("c"), state)


def a_disk_that_is_full(lab: Lab) -> Any:
    state = lab.copy_of(lab.c)
    whole = state.rename(state.with_suffix(".whole"))
    state.mkdir(mode=0o700)
    with mounted(state, "-t", "tmpfs", "-o", "size=8m", "tmpfs"):
        shutil.copytree(whole, state, dirs_exist_ok=True)
        with contextlib.suppress(OSError):
            (state / "ballast").write_bytes(bytes(8 * 1024 * 1024))
        return lab.doctor("c", lab.settings("c"), state)


def a_certificate_that_has_expired(lab: Lab) -> Any:
    state = lab.copy_of(lab.c, authority=lab.authority, now=time.time() - 10 * DAY, lifetime=DAY)
    return lab.doctor("c", lab.settings("c"), state)


def a_certificate_of_another_mesh(lab: Lab) -> Any:
    """The daemon would run, but no member speaks to it."""
    state = lab.copy_of(lab.c, authority=Authority("elsewhere"))
    return with_daemon_of_nobody(lab, state)


def with_daemon_of_nobody(lab: Lab, state: Path) -> Any:
    stranger = lab.member("d", "stranger")
    shutil.copytree(state / "identity", stranger.state / "identity")
    stranger.start().until(lambda status: status.round >= 1)
    try:
        return lab.doctor("d", lab.settings("d"), stranger.state, stranger.runtime)
    finally:
        stranger.end()


def a_clock_in_1970(lab: Lab) -> Any:
    return lab.doctor("c", lab.settings("c"), lab.copy_of(lab.c), environ=clock("@1970-01-02 00:00:00"))


def a_clock_that_has_gone_back(lab: Lab) -> Any:
    return lab.doctor("c", lab.settings("c"), lab.copy_of(lab.c), environ=clock("-3d"))


def a_clock_that_is_ahead(lab: Lab) -> Any:
    return lab.doctor("c", lab.settings("c"), lab.copy_of(lab.c), environ=clock("+40d"))


def a_model_that_is_not_there(lab: Lab) -> Any:
    return lab.doctor("c", lab.settings("c", True, model={"path": "/nowhere"}), lab.copy_of(lab.c))


def a_model_that_is_half_copied(lab: Lab) -> Any:
    half = lab.folder / "half"
    shutil.copytree(lab.model, half)
    weights = half / "model.safetensors"
    os.truncate(weights, weights.stat().st_size // 2)
    return lab.doctor("c", lab.settings("c", True, model={"path": str(half)}), lab.copy_of(lab.c))


def data_that_is_malformed(lab: Lab) -> Any:
    bad = lab.folder / "bad.jsonl"
    bad.write_text('{"text": "the cat", "label": "sport"}\n{"text": \n')
    return lab.doctor("c", lab.settings("c", True, data={"train": [str(bad)]}), lab.copy_of(lab.c))


def the_identity_of_a_node_that_runs(lab: Lab) -> Any:
    return lab.doctor("c", lab.settings("c"), lab.copy_of(lab.b))


def a_port_that_is_taken(lab: Lab) -> Any:
    listen = (
        f"import socket; taken = socket.create_server(('10.77.0.{HOSTS['c']}', {PORT})); print('', flush=True); input()"
    )
    words = [*within("c"), sys.executable, "-c", listen]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        other.stdout.readline()
        try:
            return lab.doctor("c", lab.settings("c"), lab.copy_of(lab.c))
        finally:
            other.kill()


# --- with a's daemon, which runs and mixes with b's: one at a time, and mended after ----------------------------------


def at_a(lab: Lab, whole: bool = False, **sections: Any) -> Any:
    return lab.doctor("a", lab.settings("a", whole, **sections), lab.a.state, lab.a.runtime)


def nothing(lab: Lab) -> Any:
    return at_a(lab, whole=True)


def another_runtime_folder(lab: Lab) -> Any:
    return lab.doctor("a", lab.settings("a"), lab.a.state)


def a_model_of_another_hash(lab: Lab) -> Any:
    other = make_bert(lab.folder / "other", seed=1)
    return at_a(lab, model={"path": str(other)})


def a_firewall_here_that_drops_multicast(lab: Lab) -> Any:
    with rules("a", "inet", "input", "udp dport 5353 drop"):
        return at_a(lab)


def a_network_that_drops_multicast(lab: Lab) -> Any:
    """Known members are spoken to all the same."""
    with no_flooding():
        return at_a(lab)


def a_firewall_there_that_drops_our_port(lab: Lab) -> Any:
    with rules("b", "inet", "input", f"tcp dport {PORT} drop"):
        return at_a(lab)


def a_cable_there_that_is_pulled(lab: Lab) -> Any:
    run("ip", "link", "set", "to-b", "down")
    run("ip", "-n", "a", "neighbour", "flush", "all")
    try:
        return at_a(lab)
    finally:
        run("ip", "link", "set", "to-b", "up")


def a_cable_here_that_is_pulled(lab: Lab) -> Any:
    run("ip", "link", "set", "to-a", "down")
    try:
        return at_a(lab)
    finally:
        run("ip", "link", "set", "to-a", "up")


def a_second_device_with_this_identity(lab: Lab) -> Any:
    clone = lab.member("c", "clone", mesh={"peers": [lab.address("b")]}, discovery={"mdns": False})
    shutil.copytree(lab.a.state / "identity", clone.state / "identity")
    clone.start()
    try:
        until(lambda: "identity" in places_of_trouble(lab.a), MINUTE)
        return at_a(lab)
    finally:
        clone.end()


def a_member_whose_daemon_has_ended(lab: Lab) -> Any:
    lab.b.end()
    try:
        return at_a(lab)
    finally:
        lab.b.start()


# --- with another daemon ----------------------------------------------------------------------------------------------


def a_trainer_that_crashes_again_and_again(lab: Lab) -> Any:
    limits = {"trainer_restarts": 1000, "trainer_backoff": 1.0}
    node = lab.member("c", "crashing", {"die_in_round": 1}, limits=limits)
    node.start().until(lambda status: status.trainer.restarts > 2)
    try:
        return lab.doctor("c", lab.settings("c"), node.state, node.runtime)
    finally:
        stop(node)


def a_schema_that_cannot_mix(lab: Lab) -> Any:
    node = lab.member("c", "foreign", {"schema": "c" * 64})
    node.start().until(lambda status: status.round >= 1)
    try:
        return lab.doctor("c", lab.settings("c"), node.state, node.runtime)
    finally:
        stop(node)


def a_bridge_of_containers_only(lab: Lab) -> Any:
    run("ip", "-n", "d", "link", "add", "docker0", "type", "bridge")
    run("ip", "-n", "d", "link", "set", "docker0", "up")
    run("ip", "-n", "d", "address", "add", "172.17.0.1/16", "dev", "docker0")
    run("ip", "-n", "d", "address", "flush", "dev", "eth0")
    node = lab.member("d", "contained", listen={"address": "0.0.0.0", "port": PORT})
    node.start().until(lambda status: status.round >= 1)
    try:
        return lab.doctor("d", lab.settings("d"), node.state, node.runtime)
    finally:
        stop(node)
        run("ip", "-n", "d", "address", "add", f"10.77.0.{HOSTS['d']}/24", "dev", "eth0")


def a_network_on_which_nobody_is_heard(lab: Lab) -> Any:
    with no_flooding():
        node = lab.member("e", "lonely")  # where nobody has been before: old members are looked for at their addresses
        node.start().until(lambda status: status.round >= 1)
        try:
            return lab.doctor("e", lab.settings("e"), node.state, node.runtime)
        finally:
            stop(node)


ALONE: tuple[Setup, ...] = (
    no_daemon_here,
    an_unknown_key,
    a_key_that_others_can_read,
    a_state_folder_that_is_read_only,
    a_disk_that_is_full,
    a_certificate_that_has_expired,
    a_clock_in_1970,
    a_clock_that_has_gone_back,
    a_clock_that_is_ahead,
    a_model_that_is_not_there,
    a_model_that_is_half_copied,
    data_that_is_malformed,
    the_identity_of_a_node_that_runs,
)
IN_TURN: tuple[Setup, ...] = (
    nothing,
    another_runtime_folder,
    a_model_of_another_hash,
    a_firewall_here_that_drops_multicast,
    a_network_that_drops_multicast,
    a_firewall_there_that_drops_our_port,
    a_port_that_is_taken,
    a_certificate_of_another_mesh,
    a_bridge_of_containers_only,
    a_schema_that_cannot_mix,
    a_trainer_that_crashes_again_and_again,
    a_network_on_which_nobody_is_heard,
    a_cable_there_that_is_pulled,
    a_cable_here_that_is_pulled,
    a_member_whose_daemon_has_ended,
    a_second_device_with_this_identity,
)


def places_of_trouble(node: Daemon) -> set[str]:
    said = ask_daemon(node.runtime / "control.sock")
    return {problem.place for problem in said.state.problems} if said.state else set()


def stop(node: Daemon) -> None:
    """Let it say goodbye, so that nobody looks for it later."""
    node.signal(signal.SIGTERM)
    assert node.wait() == 0


# --- breaking and mending ---------------------------------------------------------------------------------------------


def clock(says: str) -> dict[str, str]:
    return {
        "LD_PRELOAD": str(next(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"))),
        "FAKETIME": says,
    } | FAKETIME


@contextmanager
def rules(host: str, family: str, hook: str, rule: str) -> Iterator[None]:
    """A firewall on the host, with this rule."""
    run(*within(host), "nft", "add", "table", family, "broken")
    chain = ["add", "chain", family, "broken", "gate", "{", "type", "filter", "hook", hook, "priority", "0", ";", "}"]
    run(*within(host), "nft", " ".join(chain))
    run(*within(host), "nft", f"add rule {family} broken gate {rule}")
    try:
        yield
    finally:
        run(*within(host), "nft", "delete", "table", family, "broken")


@contextmanager
def no_flooding() -> Iterator[None]:
    """The switch passes on no multicast."""
    flood("off")
    try:
        yield
    finally:
        flood("on")


def flood(multicast: str) -> None:
    for host in HOSTS:
        run("bridge", "link", "set", "dev", f"to-{host}", "mcast_flood", multicast)


@contextmanager
def mounted(folder: Path, *options: str) -> Iterator[None]:
    run("mount", *options, str(folder))
    try:
        yield
    finally:
        run("umount", "--lazy", str(folder))


def tell(setup: Setup, found: Any, seconds: float) -> None:
    print(json.dumps({"set-up": setup.__name__, "seconds": round(seconds, 1), **found}), flush=True)


def look_at(setup: Setup, lab: Lab) -> None:
    began = time.monotonic()
    tell(setup, setup(lab), time.monotonic() - began)


def main() -> None:
    build(*HOSTS)
    with mesh() as make, tempfile.TemporaryDirectory(prefix="decaf-doctor-", dir="/tmp") as folder:
        lab = Lab(make, Path(folder))
        lab.a.start()
        lab.b.start()
        lab.c.start()
        for node in (lab.a, lab.b, lab.c):
            node.until(lambda status: status.mixes > 0 and status.saved_round > 0, patience=MINUTE)
        stop(lab.c)
        wanted = sys.argv[1:]
        with ThreadPoolExecutor(2) as pool:
            for done in [pool.submit(look_at, setup, lab) for setup in ALONE if not wanted or setup.__name__ in wanted]:
                done.result()
        for setup in (each for each in IN_TURN if not wanted or each.__name__ in wanted):
            look_at(setup, lab)
            until(lambda: lab.a.status().degree > 0, MINUTE)


if __name__ == "__main__":
    main()
