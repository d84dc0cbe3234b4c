from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from decaf_node.errors import BadData, DaemonUnreachable
from decaf_node.link import Pause, Resume, Stop, TrainerConnected, TrainerFailed, Welcome, decode, encode
from decaf_node.training.link import DaemonGone, DaemonLink, connect, shake_hands, tell_failure
from tests.training.fake_daemon import listening

Pair = tuple[DaemonLink, socket.socket]


@pytest.fixture
def pair() -> Iterator[Pair]:
    ours, theirs = socket.socketpair()
    link = DaemonLink(ours, limit_bytes=1000)
    yield link, theirs
    link.close()
    theirs.close()


def test_poll_returns_what_is_here_and_never_waits(pair: Pair) -> None:
    link, daemon = pair
    assert link.poll() is None
    daemon.sendall(encode(Pause()) + encode(Resume()))
    assert [link.poll(), link.poll(), link.poll()] == [Pause(), Resume(), None]


def test_a_message_in_pieces_is_taken_when_it_is_whole(pair: Pair) -> None:
    link, daemon = pair
    line = encode(Stop())
    daemon.sendall(line[:5])
    assert link.poll() is None
    daemon.sendall(line[5:])
    assert link.poll() == Stop()


def test_what_came_before_the_end_is_still_read(pair: Pair) -> None:
    link, daemon = pair
    daemon.sendall(encode(Pause()))
    daemon.close()
    assert link.wait() == Pause()
    with pytest.raises(DaemonGone):
        link.poll()
    with pytest.raises(DaemonGone):
        link.wait()


def test_sending_to_a_daemon_that_is_gone_says_so(pair: Pair) -> None:
    link, daemon = pair
    daemon.close()
    with pytest.raises(DaemonGone):
        link.send(TrainerConnected(1))


def test_waiting_for_a_while_ends_with_a_message_or_without(pair: Pair) -> None:
    link, daemon = pair
    assert link.wait_for(0.0) is None
    assert link.wait_for(0.01) is None
    line = encode(Pause())
    daemon.sendall(line[:5])
    assert link.wait_for(0.01) is None  # half a message is none
    daemon.sendall(line[5:] + line)
    assert link.wait_for(60.0) == Pause()
    assert link.wait_for(60.0) == Pause()
    daemon.close()
    with pytest.raises(DaemonGone):
        link.wait_for(60.0)


def test_a_line_without_end_is_refused(pair: Pair) -> None:
    link, daemon = pair
    daemon.sendall(b"x" * 2000)
    with pytest.raises(BadData, match="1000 bytes") as caught:
        link.wait()
    assert caught.value.reason == "link.too-long"


def test_nobody_listens(tmp_path: Path) -> None:
    with pytest.raises(DaemonUnreachable) as caught:
        connect(tmp_path / "no.sock")
    assert caught.value.reason == "training.no-daemon"


def test_hands_are_shaken_over_a_real_socket() -> None:
    with listening() as (server, path, _):
        link = connect(path)
        stream = server.accept()[0]
        welcome = Welcome("N", "n", {}, "/spool")
        stream.sendall(encode(welcome))
        assert shake_hands(link) == welcome
        assert isinstance(decode(stream.recv(1000)), TrainerConnected)
        link.close()
        stream.close()


def test_a_daemon_that_does_not_greet_is_refused(pair: Pair) -> None:
    link, daemon = pair
    daemon.sendall(encode(Pause()))
    with pytest.raises(BadData) as caught:
        shake_hands(link)
    assert caught.value.reason == "link.no-welcome"


def test_last_words_are_said_if_anyone_hears_them(pair: Pair) -> None:
    link, daemon = pair
    error = BadData("data.empty", "Nothing is there.")
    tell_failure(link, error, fatal=True)
    assert decode(daemon.recv(1000)) == TrainerFailed("data.empty", "Nothing is there.", 65, True)
    daemon.close()
    tell_failure(link, error, fatal=True)  # and if nobody does, that is no error
