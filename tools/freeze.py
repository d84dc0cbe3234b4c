"""Freeze the daemon of this release: tests/frozen/decaf_node.zip, which the daemons of later releases must mix with.

Python imports from it as it is: ``PYTHONPATH=tests/frozen/decaf_node.zip``. See ``make baseline``.
"""

from __future__ import annotations

import zipfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
FROZEN = ROOT / "tests" / "frozen" / "decaf_node.zip"
PARTS = ("*.py", "daemon/**/*.py", "mesh/*.py", "v1/*.py")  # a daemon; its trainer is the tests'
WHEN = (2000, 1, 1, 0, 0, 0)  # the same files give the same archive


def main() -> None:
    """Write it anew."""
    package = ROOT / "decaf_node"
    FROZEN.parent.mkdir(exist_ok=True)
    with zipfile.ZipFile(FROZEN, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for path in sorted({path for pattern in PARTS for path in package.glob(pattern)}):
            archive.writestr(
                zipfile.ZipInfo(str(path.relative_to(ROOT)), WHEN), path.read_bytes(), zipfile.ZIP_DEFLATED
            )


if __name__ == "__main__":
    main()
