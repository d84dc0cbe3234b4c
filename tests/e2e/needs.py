"""What a test needs of this machine, or it is skipped with the reason; on CI that is a failure."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys

import pytest


def root_and(*tools: str) -> None:
    for tool in tools:
        if shutil.which(tool) is None:
            pytest.skip(f"there is no {tool} command")
    if os.getuid() != 0:
        pytest.skip("only root can do this")


def the_same_python() -> None:
    """What is installed for these tests must fit the distribution's Python."""
    here = subprocess.check_output(["/usr/bin/python3", "-c", "import sys; print(*sys.version_info[:2])"], text=True)
    if here.split() != list(map(str, sys.version_info[:2])):
        pytest.skip(f"these tests run in another version of Python than {platform.node()}'s own, {here.strip()}")
