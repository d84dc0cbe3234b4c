"""Ask a running daemon: synchronous and quick to import, for the command line."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Generator
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

import grpc

from decaf_node.daemon.alert_wire import alert_from_wire
from decaf_node.daemon.answers import EvaluateAnswer, ExportAnswer, LeaveAnswer, ReloadAnswer, ResumeAnswer
from decaf_node.daemon.control_wire import evaluate_from_wire, export_from_wire, leave_from_wire, reload_from_wire
from decaf_node.daemon.event_wire import event_from_wire
from decaf_node.daemon.logs import printable
from decaf_node.daemon.report_wire import peer_from_wire, round_from_wire, status_from_wire, text
from decaf_node.daemon.reports import (
    HEARTBEAT_SECONDS,
    AlertReport,
    ApplicantReport,
    EventReport,
    PeerReport,
    RoundReport,
    StateReport,
    StatusReport,
    TopologyReport,
    WaitingReport,
)
from decaf_node.daemon.rpc_errors import error_of
from decaf_node.daemon.topology_wire import topology_from_wire
from decaf_node.errors import DaemonUnreachable, NotAllowed, TryAgain
from decaf_node.v1 import control_pb2, control_pb2_grpc, monitor_pb2, monitor_pb2_grpc

Answer = TypeVar("Answer")
OpenChannel = Callable[[list[tuple[str, int]]], grpc.Channel]
LONG_SECONDS = 600.0  # for what may take the node so long: to evaluate, to copy, to come to an end
REPLY_LIMIT_BYTES = 64 * 1024 * 1024  # a thousand rounds with hundreds of edges each
RECONNECT_MILLISECONDS = 2000  # the longest pause, for those who go on asking while a daemon is started again
OPTIONS = [
    ("grpc.max_receive_message_length", REPLY_LIMIT_BYTES),
    ("grpc.initial_reconnect_backoff_ms", RECONNECT_MILLISECONDS // 4),
    ("grpc.max_reconnect_backoff_ms", RECONNECT_MILLISECONDS),
]


class Client:
    """One connection to a daemon: to its control socket, or, through ``remote.client_at``, to one of another device.

    Every call takes at most ``timeout`` seconds. It raises DaemonUnreachable if no daemon answers there, TryAgain if it
    answers but not in time, NotAllowed ``daemon.not-allowed``, and whatever the daemon refuses with.
    """

    def __init__(
        self, place: Path | str, timeout: float = 3.0, channel: OpenChannel | None = None, start: str = "decaf-node run"
    ) -> None:
        """channel: opens the way to an address; the control socket needs none. start: what starts the daemon there."""
        self._place = place
        self._start = start
        self._timeout = timeout
        if channel is None:
            channel = partial(grpc.insecure_channel, f"unix:{Path(place).absolute()}")
        self._channel = channel(OPTIONS)
        self._monitor = monitor_pb2_grpc.MonitorStub(self._channel)
        self._control = control_pb2_grpc.ControlStub(self._channel)

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let the connection go."""
        self._channel.close()

    def status(self) -> StatusReport:
        """The node at a glance."""
        request = monitor_pb2.GetStatusRequest()
        return status_from_wire(self._ask(lambda: self._monitor.GetStatus(request, timeout=self._timeout)))

    def peers(self) -> list[PeerReport]:
        """Every member the node knows of."""
        request = monitor_pb2.ListPeersRequest()
        reply = self._ask(lambda: self._monitor.ListPeers(request, timeout=self._timeout))
        return [peer_from_wire(peer) for peer in reply.peers]

    def rounds(self, before: int = 0, limit: int = 100) -> list[RoundReport]:
        """The history, newest first: rounds before ``before`` (0: from the newest), at most ``limit`` (≤ 1000)."""
        request = monitor_pb2.ListRoundsRequest(before=before, limit=limit)
        reply = self._ask(lambda: self._monitor.ListRounds(request, timeout=self._timeout))
        return [round_from_wire(row) for row in reply.rounds]

    def topology(self) -> TopologyReport:
        """Who mixes with whom, as the node works it out."""
        request = monitor_pb2.GetTopologyRequest()
        return topology_from_wire(self._ask(lambda: self._monitor.GetTopology(request, timeout=self._timeout)))

    def alerts(self) -> list[AlertReport]:
        """What is wrong now, the worst first."""
        request = monitor_pb2.ListAlertsRequest()
        reply = self._ask(lambda: self._monitor.ListAlerts(request, timeout=self._timeout))
        return [alert_from_wire(alert) for alert in reply.alerts]

    def watch(self, instance: str = "", after: int = 0) -> Generator[EventReport, None, None]:
        """Yield the state, or what came after an event of this instance; then changes and heartbeats, without end.

        Raises TryAgain ``daemon.slow`` when heartbeats stay out, and what every call does.
        """
        request = monitor_pb2.WatchRequest(instance=instance, after=after)
        call = self._monitor.Watch(request)
        heartbeat, patience = HEARTBEAT_SECONDS, self._timeout
        try:
            while True:
                event = event_from_wire(self._ask(partial(_next_in_time, call, patience)))
                if event is None:
                    continue
                if isinstance(event.what, StateReport):
                    heartbeat = event.what.heartbeat_seconds
                patience = self._timeout + 2 * heartbeat
                yield event
        except TooLate:
            raise self._slow(patience) from None
        finally:
            call.cancel()

    def pause(self) -> str:
        """Stop training at its next step and refuse edges, until ``resume``. Returns the phase then."""
        request = control_pb2.PauseRequest()
        return self._ask(lambda: self._control.Pause(request, timeout=self._timeout)).phase

    def resume(self) -> ResumeAnswer:
        """Go on after ``pause``."""
        request = control_pb2.ResumeRequest()
        reply = self._ask(lambda: self._control.Resume(request, timeout=self._timeout))
        return ResumeAnswer(text(reply.phase), text(reply.why_paused))

    def invite(self, ttl: float, uses: int) -> str:
        """Return the line of a new invitation. Raises NotAllowed ``security.no-inviter``."""
        request = control_pb2.InviteRequest(ttl_seconds=ttl, uses=uses)
        return self._ask(lambda: self._control.Invite(request, timeout=self._timeout)).token

    def waiting(self, open_seconds: float = 0.0) -> WaitingReport:
        """Return who waits to be let in, and let devices ask for so long. Raises NotAllowed ``security.no-inviter``."""
        request = control_pb2.ListWaitingRequest(open_seconds=open_seconds)
        reply = self._ask(lambda: self._control.ListWaiting(request, timeout=self._timeout))
        waiting = tuple(ApplicantReport(each.node, each.name, each.source) for each in reply.waiting)
        return WaitingReport(reply.authority, waiting)

    def approve(self, node: str, as_inviter: bool) -> bool:
        """Let a device in, or a member invite; say whether it waited. Raises what ``Enrolment.approve`` does."""
        request = control_pb2.ApproveRequest(node=node, as_inviter=as_inviter)
        return self._ask(lambda: self._control.Approve(request, timeout=self._timeout)).joined

    def revoke(self, node: str) -> int:
        """Put a member out; return how many know by now. Raises NotAllowed ``revoke.not-founder``."""
        request = control_pb2.RevokeRequest(node=node)
        return self._ask(lambda: self._control.Revoke(request, timeout=self._timeout)).told

    def leave(self) -> LeaveAnswer:
        """Save, say goodbye, and end the daemon."""
        request = control_pb2.LeaveRequest()
        return leave_from_wire(self._ask(lambda: self._control.Leave(request, timeout=LONG_SECONDS)))

    def mix_now(self) -> int:
        """End the local steps of this round, and mix. Returns the round. Raises TryAgain ``control.not-training``."""
        request = control_pb2.MixNowRequest()
        return self._ask(lambda: self._control.MixNow(request, timeout=self._timeout)).round

    def evaluate(self) -> EvaluateAnswer:
        """Score the held-out part now. Raises NotAllowed ``control.no-evaluation``, TryAgain ``trainer.not-ready``."""
        request = control_pb2.EvaluateRequest()
        return evaluate_from_wire(self._ask(lambda: self._control.Evaluate(request, timeout=LONG_SECONDS)))

    def export(self, folder: str = "") -> ExportAnswer:
        """Return where the last saved adapter is, copied to ``folder`` there if one is named."""
        request = control_pb2.ExportRequest(folder=folder)
        return export_from_wire(self._ask(lambda: self._control.Export(request, timeout=LONG_SECONDS)))

    def reload(self) -> ReloadAnswer:
        """Have settings and certificates read anew. Raises what is wrong with them."""
        request = control_pb2.ReloadRequest()
        return reload_from_wire(self._ask(lambda: self._control.Reload(request, timeout=LONG_SECONDS)))

    def set_log_level(self, level: str) -> str:
        """Log from this level on; returns the one before. Raises UsageError ``usage.bad-log-level``."""
        request = control_pb2.SetLogLevelRequest(level=level)
        return text(self._ask(lambda: self._control.SetLogLevel(request, timeout=self._timeout)).before)

    def _slow(self, seconds: float) -> TryAgain:
        return TryAgain("daemon.slow", f"The daemon at {self._place} has not answered within {seconds:g} s; try again.")

    def _ask(self, call: Callable[[], Answer]) -> Answer:
        try:
            return call()
        except grpc.RpcError as error:
            if (ours := error_of(error)) is not None:
                raise ours from None
            if error.code() == grpc.StatusCode.DEADLINE_EXCEEDED:
                raise self._slow(self._timeout) from None
            if error.code() == grpc.StatusCode.UNIMPLEMENTED:
                raise DaemonUnreachable(
                    "daemon.other-version",
                    f"The daemon at {self._place} is older than this command and cannot do that; update decaf-node "
                    "there, and start it again.",
                ) from None
            if isinstance(self._place, str):
                raise DaemonUnreachable(
                    "daemon.not-reached", f"{self._place} does not answer ({printable(error.details() or '')})."
                ) from None
            if _is_forbidden(self._place):
                raise NotAllowed(
                    "daemon.not-allowed",
                    f"This user may not speak to the daemon at {self._place}; use sudo, or become a member of the "
                    "group of that folder.",
                ) from None
            raise DaemonUnreachable(
                "daemon.not-running",
                f"No daemon answers at {self._place}; start one with `{self._start}`, "
                "or name its runtime folder with --runtime.",
            ) from None


def _is_forbidden(socket: Path) -> bool:
    try:
        os.stat(socket)
    except PermissionError:  # not even the folder may be looked into
        return True
    except OSError:
        return False
    return not os.access(socket, os.W_OK)


class TooLate(Exception):
    """A stream has been silent for too long."""


def _next_in_time(call: Any, seconds: float) -> Any:
    """Return the next message of a stream. Raises TooLate, StopIteration at the end of it and grpc.RpcError."""
    late = threading.Event()

    def give_up() -> None:
        late.set()
        call.cancel()

    timer = threading.Timer(seconds, give_up)
    timer.daemon = True
    timer.start()
    try:
        return next(call)
    except grpc.RpcError:
        if late.is_set():
            raise TooLate from None
        raise
    finally:
        timer.cancel()
