#!/bin/bash
# constraints.sh TORCH: write constraints.txt, the exact versions that make installs, one file for every Python from 3.10.
# What torch's CUDA build brings is left out: torch itself names the exact versions of those, and its CPU build has none.
set -euo pipefail
cd "$(dirname "$0")/.."
chosen=$(.venv/bin/uv pip compile --quiet --universal --python-version 3.10 --extra dev --extra gguf --extra ray \
    --constraints <(echo "$1") --no-header --no-annotate --no-emit-index-url --upgrade pyproject.toml)
{
    echo "# Exact versions, made by \`make constraints\`. What torch brings for CUDA is left to torch."
    awk '/^nvidia-ml-py==/ || !/^(nvidia-|cuda-|triton)/' <<<"$chosen" | sed -E 's/^(torch==[0-9.]+)\+[a-z0-9]+/\1/'
} >constraints.txt
