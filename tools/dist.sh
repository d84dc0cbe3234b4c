#!/bin/bash
# dist.sh FOLDER: write the source archive into FOLDER, and the wheel that is built from it.
set -euo pipefail
cd "$(dirname "$0")/.."
rm -f "$1"/decaf_node-*
log=$(.venv/bin/python -m build --no-isolation --outdir "$1" . 2>&1) || {
    echo "$log" >&2
    exit 1
}
.venv/bin/twine --no-color check --strict "$1"/decaf_node-*
