"""Those who watch real daemons: a round, a member that goes, a restart, the slow and the many; health, reflection."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

import grpc
import pytest
from grpc_channelz.v1 import channelz_pb2, channelz_pb2_grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from decaf_node.daemon.hub import KEPT, WATCHERS
from decaf_node.daemon.reports import (
    EventReport,
    GapReport,
    HeartbeatReport,
    PeerReport,
    PhaseReport,
    RoundReport,
    StateReport,
)
from decaf_node.errors import DaemonUnreachable, TryAgain
from decaf_node.v1 import monitor_pb2, monitor_pb2_grpc
from tests.daemon.processes import PATIENCE, Daemon, mesh, until

pytestmark = pytest.mark.slow

NOT_SERVING, SERVING = health_pb2.HealthCheckResponse.NOT_SERVING, health_pb2.HealthCheckResponse.SERVING
READY = "decaf_node.v1.Mesh"
QUICK = {"round": {"steps": 1}, "script": {"seconds": 0.01}}
GROWTH_BYTES = 40_000_000  # far below what so many events would take; far above what a run takes by itself


@contextmanager
def channel_to(daemon: Daemon, *options: tuple[str, int]) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(f"unix:{daemon.runtime}/control.sock", list(options)) as channel:
        yield channel


def until_event(events: Iterator[EventReport], wanted: Callable[[EventReport], bool]) -> list[EventReport]:
    """Take events until one is as wanted; return all."""
    taken = []
    for event in events:
        taken.append(event)
        if wanted(event):
            return taken
    raise AssertionError("a watch has no end")


def test_a_watch_sees_rounds_phases_and_a_member_that_goes() -> None:
    with mesh() as make:
        a = make("a").start()
        b = make("b", a).start()
        b.until(lambda status: status.mixes >= 1)
        with a.client() as client:
            events = client.watch()
            first = next(events)
            assert isinstance(first.what, StateReport)
            assert (first.instance, first.what.status.name) == (a.status().instance, "a")
            assert [peer.name for peer in first.what.peers] == ["b"]
            mixed = until_event(events, lambda event: isinstance(event.what, RoundReport) and bool(event.what.edges))
            phases = {event.what.phase for event in mixed if isinstance(event.what, PhaseReport)}
            assert phases <= {"training", "exchanging", "mixing", "saving"}
            graph = client.topology()
            ends = sorted((a.status().node, b.status().node))
            assert (graph.graph, graph.topology, graph.link_count, graph.turns) == ("full", "auto", 1, 1)
            assert [(member.node, member.state, member.degree) for member in graph.members] == [
                (node, "alive", 1) for node in ends
            ]
            assert [[link.one, link.other, link.weight, link.current] for link in graph.links] == [[*ends, 0.5, True]]
            b.end()
            gone = until_event(events, lambda event: isinstance(event.what, PeerReport) and event.what.state == "gone")
            after = client.topology()
            assert sorted((member.name, member.state, member.degree) for member in after.members) == [
                *(("a", "alive", 0), ("b", "gone", 0)),
            ]
            assert after.links == ()
            assert [alert.id for alert in client.alerts()] == ["neighbour.lost"]
            assert a.status().problem == client.alerts()[0].words
            told = [event for event in mixed + gone if not isinstance(event.what, HeartbeatReport)]
            assert [event.sequence for event in told] == list(range(first.sequence + 1, told[-1].sequence + 1))
            assert isinstance(told[-1].what, PeerReport)
            assert told[-1].what.name == "b"


def test_a_watch_goes_on_where_it_was_but_not_over_a_restart() -> None:
    with mesh() as make:
        a = make("a").start()
        a.until(lambda status: status.round >= 2)
        with a.client() as client:
            seen = until_event(client.watch(), lambda event: isinstance(event.what, RoundReport))[-1]
            on = client.watch(seen.instance, seen.sequence)
            told = until_event(on, lambda event: not isinstance(event.what, HeartbeatReport))[-1]
            assert told.sequence == seen.sequence + 1
            a.end()
            with pytest.raises(DaemonUnreachable) as caught:
                until_event(on, lambda event: False)
            assert caught.value.reason == "daemon.not-running"
        a.start().until(lambda status: status.round >= 2)
        with a.client() as client:
            anew = next(client.watch(seen.instance, seen.sequence))
        assert isinstance(anew.what, StateReport)
        assert anew.instance != seen.instance


def test_a_quiet_node_sends_heartbeats() -> None:
    with mesh() as make:
        a = make("a").start()
        a.until(lambda status: status.round >= 1)
        with a.client() as client:
            client.pause()
            a.until(lambda status: status.phase == "paused")
            events = until_event(client.watch(), lambda event: isinstance(event.what, HeartbeatReport))
            assert events[-1].sequence == events[-2].sequence
            on = client.watch(events[-1].instance, events[-1].sequence)
            assert [type(next(on).what) for _ in range(2)] == [HeartbeatReport, HeartbeatReport]


def test_who_never_reads_does_not_hold_up_or_grow_the_daemon_and_hears_of_the_gap() -> None:
    with mesh() as make:
        a = make("a", **QUICK).start()
        before = a.until(lambda status: status.round >= 2)
        narrow = [("grpc.http2.lookahead_bytes", 1), ("grpc.http2.bdp_probe", 0)]
        with ExitStack() as stack:
            silent = []
            for _ in range(10):
                stub = monitor_pb2_grpc.MonitorStub(stack.enter_context(channel_to(a, *narrow)))
                silent.append(stub.Watch(monitor_pb2.WatchRequest(), timeout=4 * PATIENCE))
            with a.client() as client:
                quick = client.watch()
                start = next(quick).sequence
                told = until_event(quick, lambda event: event.sequence > start + 8 * KEPT)
            assert not any(isinstance(event.what, GapReport) for event in told)
            assert a.status().resident_bytes < before.resident_bytes + GROWTH_BYTES
            kinds = []
            for event in silent[0]:
                kinds.append(event.WhichOneof("what"))
                if kinds[-2:] == ["gap", "state"]:
                    break
        assert kinds[0] == "state"


def test_too_many_watchers_are_refused_and_those_who_leave_make_room() -> None:
    with mesh() as make:
        a = make("a").start()
        a.until(lambda status: status.round >= 1)
        with a.client() as client:
            watches = [client.watch() for _ in range(WATCHERS)]
            assert all(isinstance(next(events).what, StateReport) for events in watches)
            with pytest.raises(TryAgain) as caught:
                next(client.watch())
            assert caught.value.reason == "monitor.too-many-watchers"
            watches.pop().close()

            def has_room() -> bool:
                try:
                    return isinstance(next(client.watch()).what, StateReport)
                except TryAgain:
                    return False

            until(has_room)


def test_live_is_apart_from_ready() -> None:
    with mesh() as make:
        a = make("a", training={"trainer": "external"}).start()
        a.until(lambda status: True)
        with channel_to(a) as channel:
            health = health_pb2_grpc.HealthStub(channel)

            def says(name: str) -> int:
                return int(health.Check(health_pb2.HealthCheckRequest(service=name), timeout=PATIENCE).status)

            until(lambda: says("decaf_node.v1.Control") == SERVING)
            assert [says(""), says("decaf_node.v1.Monitor"), says(READY)] == [SERVING, SERVING, NOT_SERVING]
            with pytest.raises(grpc.RpcError) as caught:
                says("decaf_node.v1.None")
            assert caught.value.code() == grpc.StatusCode.NOT_FOUND
        b = make("b").start()
        b.until(lambda status: True)
        with channel_to(b) as channel:
            said = health_pb2_grpc.HealthStub(channel).Watch(
                health_pb2.HealthCheckRequest(service=READY), timeout=PATIENCE
            )
            assert any(answer.status == SERVING for answer in said)


def test_reflection_lists_the_services_and_channelz_the_servers() -> None:
    with mesh() as make:
        a = make("a").start()
        a.until(lambda status: True)
        with channel_to(a) as channel:
            ask = reflection_pb2.ServerReflectionRequest(list_services="")
            answers = reflection_pb2_grpc.ServerReflectionStub(channel).ServerReflectionInfo(
                iter([ask]), timeout=PATIENCE
            )
            names = {service.name for service in next(answers).list_services_response.service}
            servers = channelz_pb2_grpc.ChannelzStub(channel).GetServers(
                channelz_pb2.GetServersRequest(), timeout=PATIENCE
            )
        assert names == {
            "decaf_node.v1.Control",
            "decaf_node.v1.Monitor",
            "grpc.health.v1.Health",
            "grpc.reflection.v1alpha.ServerReflection",
        }
        assert any("control.sock" in each.listen_socket[0].name for each in servers.server)
