"""The built-in trainer as a process: ``python -m decaf_node.training.worker --socket PATH``, started by the daemon.

It exits 0 when the daemon stops it or goes away, with the error's exit code when something does not fit (said to
the daemon, which says it to the person), and with a traceback when something cannot happen.
"""

from __future__ import annotations

import argparse
import logging
import sys
import tempfile
from pathlib import Path

from decaf_node.errors import BadSettings, DecafError
from decaf_node.training.link import DaemonGone, Link, connect, shake_hands, tell_failure
from decaf_node.training.offline import go_offline


def main(arguments: list[str] | None = None) -> int:
    """Run until the daemon has enough; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m decaf_node.training.worker", description=__doc__)
    parser.add_argument("--socket", type=Path, required=True, help="Unix socket of the daemon")
    logging.basicConfig(format="%(levelname)s %(message)s")
    go_offline()
    try:
        return _work(connect(parser.parse_args(arguments).socket))
    except DecafError as error:
        logging.error("%s", error)
        return error.exit_code
    except DaemonGone:
        return 0


def _work(link: Link) -> int:
    welcome = shake_hands(link)
    # heavy imports come after the hand-shake, so that the daemon knows early that we live
    from decaf_node.settings import Settings
    from decaf_node.training.assembly import assemble

    with tempfile.TemporaryDirectory(prefix="decaf-node-trainer-") as scratch:
        try:
            assembled = assemble(Settings.model_validate(welcome.settings), link, welcome, Path(scratch))
        except DecafError as error:
            tell_failure(link, error, fatal=True)
            raise
        try:
            assembled.trainer.train()
        except BadSettings as error:  # some only a step finds out
            tell_failure(link, error, fatal=True)
            raise
    return 0


if __name__ == "__main__":
    sys.exit(main())
