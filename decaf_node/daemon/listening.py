"""Where this node listens: may it, can it, and what a stranger's connection may cost."""

from __future__ import annotations

import errno
import socket

from decaf_node.daemon.addresses import is_loopback
from decaf_node.daemon.channels import WINDOW_BYTES
from decaf_node.daemon.wire import MESSAGE_LIMIT_BYTES
from decaf_node.errors import BadSettings, DecafError, NotAllowed, TryAgain

CALLS_A_CONNECTION = 16  # a neighbour needs two: a stream and a hello
HANDSHAKE_MS = 5_000
IDLE_MS = 60_000  # a connection without a call is ended then; who needs it again opens it again
METADATA_BYTES = 8 * 1024  # of headers; ours are a few hundred
SERVER_OPTIONS = [
    ("grpc.so_reuseport", 0),  # two daemons on one port are an error, not a lottery
    ("grpc.max_receive_message_length", MESSAGE_LIMIT_BYTES),
    ("grpc.max_send_message_length", MESSAGE_LIMIT_BYTES),
    ("grpc.max_concurrent_streams", CALLS_A_CONNECTION),
    ("grpc.server_handshake_timeout_ms", HANDSHAKE_MS),  # a connection that says nothing is dropped then
    ("grpc.max_metadata_size", METADATA_BYTES),
    ("grpc.absolute_max_metadata_size", 2 * METADATA_BYTES),
    ("grpc.max_connection_idle_ms", IDLE_MS),
    ("grpc.http2.bdp_probe", 0),  # a window that grows by itself would hold many MB of each stream in memory
    ("grpc.http2.lookahead_bytes", WINDOW_BYTES),
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    ("grpc.http2.min_recv_ping_interval_without_data_ms", 5_000),
    ("grpc.http2.max_pings_without_data", 0),
]


def check_plaintext(address: str, in_settings: bool) -> bool:
    """Tell whether plaintext on ``address`` is for this machine only.

    Raise unless it is allowed there: it is for this machine only, or a person has written it in the settings.

    Raises NotAllowed ``listen.insecure``, BadSettings ``listen.bad-address``.
    """
    try:
        local = is_loopback(address)
    except OSError as error:
        raise _bad_address(address, error) from error
    if not local and not in_settings:
        raise NotAllowed(
            "listen.insecure",
            f"--insecure on {address} would let everyone on this network read the snapshots and take part; listen on "
            "127.0.0.1, or write insecure = true under [security] in the settings too.",
        )
    return local


def try_port(address: str, port: int) -> None:
    """Raise unless this node can listen there.

    Raises TryAgain ``listen.port-in-use``, NotAllowed ``listen.forbidden``, BadSettings ``listen.bad-address``.
    """
    try:
        try_to_bind(address, port)
    except OSError as error:
        raise _why(address, port, error) from error


def try_to_bind(address: str, port: int) -> None:
    """Raise OSError unless one can listen there."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as trial:
        trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        trial.bind((address, port))


def in_use(address: str, port: int) -> TryAgain:
    """Return the error for a port that somebody else has."""
    return TryAgain(
        "listen.port-in-use",
        f"Port {port} of {address} is in use by another program; stop that one, or set another in the settings "
        "under [listen] (0 takes a free one).",
    )


def _why(address: str, port: int, error: OSError) -> DecafError:
    match error.errno:
        case errno.EADDRINUSE:
            return in_use(address, port)
        case errno.EACCES:
            return NotAllowed(
                "listen.forbidden", f"Port {port} is kept for root; set one from 1024 in the settings under [listen]."
            )
        case _:
            return _bad_address(address, error)


def _bad_address(address: str, error: OSError) -> BadSettings:
    return BadSettings(
        "listen.bad-address",
        f"listen.address {address!r} is no address of this machine ({error.strerror}); "
        "use one of its own, or 0.0.0.0 for all.",
    )
