"""The command ``decaf-node`` as it is, but with the scripted trainer in place of the built-in one."""

from __future__ import annotations

import os
import sys
from functools import partial
from pathlib import Path

os.environ.setdefault("GRPC_VERBOSITY", "ERROR")  # read when grpc is imported

from decaf_node.cli.main import main
from decaf_node.daemon import main as daemon

daemon.run = partial(daemon.run, worker=(str(Path(__file__).with_name("scripted_trainer.py")),))

if __name__ == "__main__":
    sys.exit(main())
