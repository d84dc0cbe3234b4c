"""A real daemon process: ``python run_scripted.py CONFIG STATE RUNTIME [--insecure] [--built-in]``.

With the scripted trainer, unless it is to be the built-in one.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time
import traceback
from functools import partial
from pathlib import Path
from typing import Any

from decaf_node import link
from decaf_node.errors import DecafError
from decaf_node.places import find_places
from decaf_node.settings import load_settings

ROOT = Path(__file__).parents[2]
TRAINER = Path(__file__).with_name("scripted_trainer.py")


def watch_fsync() -> None:
    """Say it in the log if anything flushes to the disk on the event loop, which a slow disk would hold up.

    The disk is as slow as ``FSYNC_SECONDS`` says.
    """
    flush, seconds = os.fsync, float(os.environ.get("FSYNC_SECONDS", "0"))

    def watched(fd: Any) -> None:
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            if seconds:  # under libfaketime there is no sleeping
                time.sleep(seconds)
            flush(fd)
            return
        print(f"fsync on the loop\n{''.join(traceback.format_stack(limit=8))}", file=sys.stderr)
        flush(fd)

    os.fsync = watched


def main() -> int:
    watch_fsync()
    if not Path(link.__file__).is_relative_to(ROOT / "decaf_node"):
        print(f"decaf_node of {link.__file__}", file=sys.stderr)
    os.environ.setdefault("GRPC_VERBOSITY", "ERROR")  # as the command does
    from decaf_node.daemon.main import run  # only now: gRPC reads it when it is imported
    from decaf_node.daemon.trainer import WORKER

    config, state, runtime = (Path(argument) for argument in sys.argv[1:4])
    try:
        read = partial(load_settings, config, os.environ)
        settings, places = read(), find_places(os.environ, config, state, runtime)
        worker = WORKER if "--built-in" in sys.argv else (str(TRAINER),)
        run(settings, read, places, worker, insecure="--insecure" in sys.argv)
        code = 0
    except DecafError as error:
        print(f"error: {error}", file=sys.stderr)
        code = error.exit_code
    heavy = sorted(name for name in ("torch", "transformers", "peft", "datasets") if name in sys.modules)
    print(f"heavy modules: {heavy}", file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
