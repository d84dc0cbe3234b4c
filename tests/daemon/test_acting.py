"""What operators have real daemons do: mix now, evaluate, export, reload, log more, leave."""

from __future__ import annotations

import asyncio
import json
import signal
from pathlib import Path
from typing import Any

import pytest

from decaf_node import link
from decaf_node.daemon.evaluating import Evaluating
from decaf_node.daemon.reloading import differing
from decaf_node.errors import BadSettings, NotAllowed, TryAgain, UsageError
from decaf_node.settings import Settings, parse_settings
from tests.daemon.processes import mesh

LONG = {"round": {"overlap": True}, "script": {"seconds": 3600.0}}


def settings(**sections: Any) -> Settings:
    return parse_settings({"model": {"path": "m"}, "data": {"train": ["d"]}, **sections}, "here")


def test_what_differs_between_settings_is_named() -> None:
    now = settings(mesh={"peers": ["a:1"]}, lora={"r": 4}, log={"level": "debug"})
    assert differing(settings(), now) == ["log.level", "lora.r", "mesh.peers"]
    assert differing(now, now) == []


async def test_who_asks_for_an_evaluation_meanwhile_is_answered_with_it() -> None:
    asked = []
    evaluating = Evaluating(lambda: asked.append(1))
    waiting = [asyncio.ensure_future(evaluating.evaluate()) for _ in range(3)]
    await asyncio.sleep(0)
    waiting[0].cancel()
    found = link.EvaluatedNow(3, 0.5, None, 10, 1.0)
    evaluating.answer(found)
    evaluating.answer(None)  # nobody waits any more
    assert await asyncio.gather(*waiting[1:]) == [found, found]
    assert asked == [1]


@pytest.mark.slow
def test_a_round_of_an_hour_is_mixed_when_that_is_asked_for() -> None:
    with mesh() as make:
        a = make("a", **LONG).start()
        b = make("b", a, **LONG).start()
        for node in (a, b):
            node.until(lambda status: status.phase == "training" and status.degree == 1)
            with node.client() as client:
                assert client.mix_now() == 1
        for node in (a, b):
            node.until(lambda status: status.mixes == 1 and status.saved_round == 1 and status.round == 2)
        with a.client() as client:
            client.pause()
            with pytest.raises(TryAgain) as paused:
                client.mix_now()
        assert (paused.value.reason, "is paused" in paused.value.message) == ("control.not-training", True)


@pytest.mark.slow
def test_evaluation_and_export(tmp_path: Path) -> None:
    with mesh() as make:
        a = make("a", script={"value": 2.5}, round={"limit": 2}).start()
        a.until(lambda status: status.phase == "done" and status.saved_round == 2)
        with a.client() as client:
            found = client.evaluate()
            assert (found.round, found.loss, found.accuracy, found.examples) == (2, 2.5, 0.5, 10)
            assert all(row.evaluation_loss == 2.5 for row in client.rounds())
            where = client.export()
            assert (where.folder, where.round) == (str(a.state / "export" / "adapter"), 2)
            copied = client.export(str(tmp_path / "copy"))
            assert json.loads((Path(copied.folder) / "value.json").read_text()) == {"value": 2.5, "round": 2}
            with pytest.raises(NotAllowed) as again:
                client.export(str(tmp_path / "copy"))
            assert again.value.reason == "export.not-empty"
            with pytest.raises(UsageError):
                client.export("here")
        b = make("b", script={"nothing_held_out": True, "seconds": 3600.0}).start()
        b.until(lambda status: status.trainer.state == "ready")
        with b.client() as client:
            with pytest.raises(NotAllowed) as nothing:
                client.evaluate()
            assert nothing.value.reason == "control.no-evaluation"
            with pytest.raises(TryAgain) as unsaved:
                client.export()
            assert unsaved.value.reason == "export.nothing-saved"


@pytest.mark.slow
def test_an_evaluation_ends_with_its_trainer() -> None:
    with mesh() as make:
        a = make("a", script={"die_when_asked": True, "seconds": 3600.0}).start()
        a.until(lambda status: status.trainer.state == "ready")
        with a.client() as client, pytest.raises(TryAgain) as lost:
            client.evaluate()
        assert lost.value.reason == "trainer.lost"


@pytest.mark.slow
def test_settings_that_can_change_count_at_once_and_the_others_are_named() -> None:
    with mesh() as make:
        a = make("a").start()
        b = make("b").start()
        b.until(lambda status: status.trainer.state == "ready")
        a.until(lambda status: status.trainer.state == "ready")
        with b.client() as client:
            assert client.reload().sentence == "The certificates are read anew. The settings are as they were."
            b.configure(
                {
                    "mesh": {"peers": [a.address()]},
                    "log": {"level": "debug"},
                    "listen": {"port": 0, "enrolment_port": 1},
                }
            )
            answer = client.reload()
            assert answer.applied == ("log.level", "mesh.peers")
            assert answer.needs_restart == ("listen.enrolment_port",)
            assert answer.sentence.endswith("Restart the daemon for: listen.enrolment_port.")
            b.until(lambda status: status.mixes >= 1)
            assert client.reload().needs_restart == ("listen.enrolment_port",)  # as long as that was not done
            assert client.set_log_level("warning") == "debug"
            with pytest.raises(UsageError) as level:
                client.set_log_level("loud")
            assert level.value.reason == "usage.bad-log-level"
            b.configure({"nonsense": {"key": 1}})
            with pytest.raises(BadSettings) as bad:
                client.reload()
            assert bad.value.reason == "settings.unknown-key"
            assert "settings.unknown-key" in [alert.id for alert in client.alerts()]
        b.configure({"mesh": {"peers": [a.address()]}, "log": {"level": "debug"}})
        b.signal(signal.SIGHUP)
        b.until(lambda status: not status.problem)


@pytest.mark.slow
def test_who_leaves_says_goodbye_and_ends() -> None:
    with mesh() as make:
        a = make("a").start()
        b = make("b", a).start()
        b.until(lambda status: status.mixes >= 1 and status.saved_round >= 1)
        with b.client() as client:
            answer = client.leave()
        assert b.wait() == 0
        assert answer.told == 1
        assert answer.saved_round >= 1
        a.until(lambda status: status.degree == 0)
        with a.client() as client:
            assert [peer.state for peer in client.peers()] == ["gone"]
            assert [alert.id for alert in client.alerts()] == []  # nothing is wrong about a goodbye
        assert "Traceback" not in b.log()
