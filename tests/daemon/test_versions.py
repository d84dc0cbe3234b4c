"""Nodes of different versions: the API as it was released last (proto/baseline.binpb), over real sockets.

An older daemon is a server with the old services, made from the old descriptors. An older client is one with the old
messages, at a real daemon of today.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

from decaf_node.daemon.client import Client
from decaf_node.errors import DaemonUnreachable
from tests.cli.command import decaf_node
from tests.daemon.processes import mesh

BASELINE = Path(__file__).parents[2] / "proto" / "baseline.binpb"
NODE = "A" * 52


class Old:
    """The messages of the baseline."""

    def __init__(self) -> None:
        self._pool = descriptor_pool.DescriptorPool()
        for file in descriptor_pb2.FileDescriptorSet.FromString(BASELINE.read_bytes()).file:
            self._pool.AddSerializedFile(file.SerializeToString())

    def message(self, name: str) -> Any:
        return message_factory.GetMessageClass(self._pool.FindMessageTypeByName(f"decaf_node.v1.{name}"))

    def has(self, service: str, method: str) -> bool:
        return method in self._pool.FindServiceByName(f"decaf_node.v1.{service}").methods_by_name


OLD = Old()


@contextmanager
def old_daemon(**answers: Any) -> Iterator[Path]:
    """Serve these answers to methods of the old ``Monitor``, and nothing else; give the folder of the socket."""
    assert all(OLD.has("Monitor", method) for method in answers)
    handlers: dict[str, Any] = {
        method: grpc.unary_unary_rpc_method_handler(
            partial(lambda reply, request, context: reply, reply),
            request_deserializer=OLD.message(f"{method}Request").FromString,
            response_serializer=lambda reply: reply.SerializeToString(),
        )
        for method, reply in answers.items()
    }
    server = grpc.server(ThreadPoolExecutor(2))
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("decaf_node.v1.Monitor", handlers),))
    with tempfile.TemporaryDirectory(prefix="decaf-", dir="/tmp") as folder:
        server.add_insecure_port(f"unix:{folder}/control.sock")
        server.start()
        try:
            yield Path(folder)
        finally:
            server.stop(None).wait()


def glance(**more: Any) -> Any:
    return OLD.message("GetStatusReply")(**{"node": NODE, "name": "orin", "mesh": "lab", "phase": "training", **more})


def test_what_an_older_daemon_does_not_know_is_said_in_a_sentence() -> None:
    with old_daemon(GetStatus=glance()) as folder, Client(folder / "control.sock") as client:
        assert client.status().machine is None
        for call in (client.alerts, client.topology, client.mix_now, client.evaluate, client.leave, client.reload):
            with pytest.raises(DaemonUnreachable) as caught:
                call()
            assert caught.value.reason == "daemon.other-version"
            assert "is older than this command and cannot do that; update decaf-node there" in caught.value.message


@pytest.mark.slow
def test_the_commands_of_today_at_an_older_daemon() -> None:
    answers = {
        "GetStatus": glance(problem="The disk is full; make room."),
        "ListPeers": OLD.message("ListPeersReply")(),
    }
    with old_daemon(**answers) as folder:
        status = decaf_node("status", "--runtime", folder)
        assert (status.returncode, status.stderr) == (0, "")
        assert status.stdout.splitlines()[1] == "! The disk is full; make room."
        assert json.loads(decaf_node("status", "--runtime", folder, "--json").stdout)["alerts"] == []
        mix = decaf_node("mix", "--runtime", folder)
        assert (mix.returncode, mix.stdout) == (69, "")
        assert mix.stderr.count("\n") == 1
        assert mix.stderr.endswith("and start it again. [daemon.other-version]\n")
    with old_daemon(GetStatus=glance(node="")) as folder:
        odd = decaf_node("status", "--runtime", folder)
        assert (odd.returncode, odd.stderr.count("\n")) == (65, 1)
        assert "update the older one" in odd.stderr


@pytest.mark.slow
def test_an_older_client_at_a_daemon_of_today() -> None:
    with mesh() as make:
        a = make("a").start()
        make("b", a).start()
        a.until(lambda status: status.machine is not None)
        a.mixed()
        with grpc.insecure_channel(f"unix:{a.runtime}/control.sock") as channel:

            def ask(service: str, method: str, reply: str = "") -> Any:
                assert OLD.has(service, method)
                call: Any = channel.unary_unary(
                    f"/decaf_node.v1.{service}/{method}",
                    request_serializer=lambda request: request.SerializeToString(),
                    response_deserializer=OLD.message(reply or f"{method}Reply").FromString,
                )
                return call(OLD.message(f"{method}Request")(), timeout=10)

            assert ask("Monitor", "GetStatus").name == "a"
            assert [peer.name for peer in ask("Monitor", "ListPeers").peers] == ["b"]
            assert any(edge.weight == 0.5 for row in ask("Monitor", "ListRounds").rounds for edge in row.edges)
            assert ask("Control", "Pause").phase == "paused"
            watch: Any = channel.unary_stream(
                "/decaf_node.v1.Monitor/Watch",
                request_serializer=lambda request: request.SerializeToString(),
                response_deserializer=OLD.message("WatchEvent").FromString,
            )
            events = watch(OLD.message("WatchRequest")(), timeout=10)
            assert next(events).state.status.phase == "paused"
            events.cancel()
