"""The built-in trainer as a process: ``python -m decaf_node.training.worker --socket PATH``, started by the daemon.

Of several (``launch.py``) each is one of these, and the first speaks to the daemon.

It exits 0 when the daemon stops it or goes away, with the error's exit code when something does not fit (said to
the daemon, which says it to the person), and with a traceback when something cannot happen.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from decaf_node.errors import BadSettings, DecafError
from decaf_node.link import Welcome, decode, encode
from decaf_node.training.libraries import demand_libraries
from decaf_node.training.link import DaemonGone, Link, connect, shake_hands, tell_failure
from decaf_node.training.offline import go_offline


def main(arguments: list[str] | None = None) -> int:
    """Run until the daemon has enough; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m decaf_node.training.worker", description=__doc__)
    parser.add_argument("--socket", type=Path, required=True, help="Unix socket of the daemon")
    leads = os.environ.get("RANK", "0") == "0"
    logging.basicConfig(format="%(levelname)s %(message)s", level=logging.WARNING if leads else logging.ERROR)
    go_offline()
    try:
        socket = parser.parse_args(arguments).socket
        return _work(connect(socket) if leads else None)
    except DecafError as error:
        logging.error("%s", error)
        return error.exit_code
    except DaemonGone:
        return 0


def _work(link: Link | None) -> int:
    """Train as the daemon says. link: None where another process speaks to it."""
    words = "" if link is None else encode(shake_hands(link)).decode()
    with _told(link, BadSettings):
        demand_libraries()
    # heavy imports come after the hand-shake, so that the daemon knows early that we live
    from decaf_node.settings import Settings
    from decaf_node.training.assembly import assemble
    from decaf_node.training.ranks import find_ranks, meet, part

    meet()
    welcome = decode(find_ranks().share(lambda: words).encode())
    assert isinstance(welcome, Welcome)
    with tempfile.TemporaryDirectory(prefix="decaf-node-trainer-") as scratch:
        with _told(link, DecafError):
            assembled = assemble(Settings.model_validate(welcome.settings), link, welcome, Path(scratch))
        with _told(link, BadSettings):  # some only a step finds out
            assembled.trainer.train()
    part()
    return 0


@contextmanager
def _told(link: Link | None, kind: type[DecafError]) -> Iterator[None]:
    """Tell the daemon of an error of this kind, which nothing but the person can mend; it is raised all the same."""
    try:
        yield
    except kind as error:
        if link is not None:
            tell_failure(link, error, fatal=True)
        raise


if __name__ == "__main__":
    sys.exit(main())
