"""Whole daemons and their papers: renewed, read anew, cloned, from an outside authority, and none at all."""

from __future__ import annotations

import asyncio
import contextlib
import resource
import shutil
import signal
import socket
import time
from datetime import datetime, timedelta, timezone
from functools import partial
from pathlib import Path

import psutil
import pytest
from cryptography import x509

from decaf_node.daemon.clock import require_clock
from decaf_node.daemon.founding import refuse_member
from decaf_node.daemon.security import look
from decaf_node.errors import NotAllowed, TryAgain
from tests.daemon.company import Company
from tests.daemon.processes import Daemon, mesh, until
from tests.daemon.trusted import Authority

slow = pytest.mark.slow


def shown_by(node: Daemon) -> x509.Certificate:
    return asyncio.run(look(node.address()))


def is_renewed(node: Daemon) -> bool:
    return "The certificate is renewed" in node.log()


@slow
def test_certificates_renew_by_themselves_before_they_expire() -> None:
    with mesh() as make:
        lab = Authority()
        a, b = make("a", authority=lab), make("b", authority=lab)
        lab.found(a.state)
        for node in (a, b):
            lab.admit(node.state, lifetime=3600.0, now=time.time() - 3540)  # a minute is left
        a.start()
        b.configure({"mesh": {"peers": [a.address()]}})
        b.start()
        for node in (a, b):
            until(partial(is_renewed, node))
            assert shown_by(node).not_valid_after_utc > datetime.now(timezone.utc) + timedelta(days=300)
        mixes = b.until(lambda status: status.mixes > 0 and not status.problem).mixes
        b.until(lambda status: status.mixes > mixes + 2)
        assert (b.state / "identity" / "certificate.pem").stat().st_mode & 0o77 == 0


@slow
def test_without_a_signer_a_certificate_that_runs_out_is_said_and_an_expired_one_is_refused() -> None:
    with mesh() as make:
        lab = Authority()
        a = make("a", authority=lab)
        lab.admit(a.state, lifetime=3600.0, now=time.time() - 3540)
        a.start()
        assert "no member that could renew it" in a.until(lambda status: status.problem != "").problem
        lab.admit(a.state, lifetime=60.0, now=time.time() - 3600)
        a.end()
        a.start()
        assert a.wait() == 77
        assert "Ask for an invitation, and join again. [certificate.expired]" in a.log()
        refuse_member(a.state / "identity", "join.already-member")  # does not: it may join again
        with pytest.raises(NotAllowed):
            Authority().admit(a.state)  # but not another mesh


@slow
def test_certificates_are_read_anew_on_sighup() -> None:
    with mesh() as make:
        lab = Authority()
        a = make("a", authority=lab).start()
        before = shown_by(a)
        lab.admit(a.state)
        a.signal(signal.SIGHUP)
        a.says("read anew")
        after = shown_by(a)
        assert after != before
        (a.state / "identity" / "certificate.pem").write_text("nonsense")
        a.signal(signal.SIGHUP)
        assert "no certificate that can be read" in a.until(lambda status: status.problem != "").problem
        assert shown_by(a) == after


@slow
def test_plaintext_is_for_this_machine_or_written_down() -> None:
    with mesh() as make:
        a = make("a", authority=None).start("--insecure")
        a.until(lambda status: status.round >= 1)
        b = make("b", authority=None, listen={"port": 0, "address": "0.0.0.0"}).start("--insecure")
        assert b.wait() == 77
        assert "[listen.insecure]" in b.log()


@slow
def test_a_cloned_identity_is_said_by_all_three_and_mixed_once() -> None:
    with mesh() as make:
        a = make("a").start()
        b = make("b", a, script={"value": 1.0}).start()
        b.until(lambda status: status.mixes > 0)
        clone = make("clone", a, script={"value": 2.0})
        shutil.copytree(b.state / "identity", clone.state / "identity")
        clone.start()
        assert "Two devices have the identity" in a.until(lambda status: "Two devices" in status.problem).problem
        for node in (b, clone):
            node.until(lambda status: "Another device, at 127.0.0.1, has the identity" in status.problem)
        for node in (a, b, clone):
            assert "has the identity" in node.log() or "have the identity" in node.log()
        instances = {node: node.status().instance for node in (b, clone)}
        first, second = sorted(instances, key=lambda node: instances[node])
        until(lambda: len(second.rounds()) > 9 and not any(row.edges for row in second.rounds()[:9]))
        mixes = first.status().mixes
        first.until(lambda status: status.mixes > mixes)
        assert not any(row.edges for row in second.rounds()[:9])


@slow
def test_a_flood_of_silent_connections_keeps_nobody_out_for_long() -> None:
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with mesh() as make, contextlib.ExitStack() as opened:
        a = make("a").start()
        host, _, port = a.address().rpartition(":")
        assert a.process is not None
        process = psutil.Process(a.process.pid)
        files, memory = process.num_fds(), process.memory_info().rss
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
        for _ in range(min(10_000, most - 500)):
            opened.enter_context(socket.create_connection((host, int(port))))
        b = make("b", a).start()
        b.until(lambda status: status.mixes > 0)
        assert process.num_fds() - files <= 512 + 16
        assert process.memory_info().rss - memory < 100e6
        assert a.status().problem == ""


@slow
def test_an_outside_authority_serves_as_well(tmp_path: Path) -> None:
    company = Company()
    with mesh() as make:
        a = make("a", authority=None, security=company.issue(tmp_path / "a", "a")).start()
        b = make("b", a, authority=None, security=company.issue(tmp_path / "b", "b")).start()
        stranger = make("stranger", a).start()
        b.until(lambda status: status.mixes > 1 and not status.problem)
        stranger.until(lambda status: status.round > 3)
        assert stranger.status().mixes == 0
        assert [peer.name for peer in a.client().peers()] == ["b"]
        before = shown_by(a)
        (tmp_path / "a" / "key.pem").chmod(0o644)
        a.signal(signal.SIGHUP)
        assert "open to other users" in a.until(lambda status: status.problem != "").problem
        assert shown_by(a) == before


def test_a_clock_that_starts_in_1970_is_said() -> None:
    with pytest.raises(TryAgain) as caught:
        require_clock(12345.0)
    assert caught.value.reason == "clock.not-set"
    assert "1970-01-01" in caught.value.message
    require_clock(time.time())
