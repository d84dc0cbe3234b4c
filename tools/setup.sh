#!/bin/bash
# setup.sh FOLDER WHAT PIP-ARGUMENTS...: make the virtual environment FOLDER where there is none, and install into it.
# On a terminal one line shows how far it is; elsewhere only the stages are named.
set -euo pipefail
cd "$(dirname "$0")/.."
folder=$1 what=$2
shift 2

say() { echo "$*" >&2; }

find_python() { # the newest Python from 3.10 on that can make a virtual environment, newest first
    local name too_old="" no_venv=""
    for name in python3.13 python3.12 python3.11 python3.10 python3; do
        "$name" -c "pass" 2>/dev/null || continue
        if ! "$name" -c "import sys; sys.exit(sys.version_info < (3, 10))"; then
            too_old=$(command -v "$name")
        elif ! "$name" -c "import venv; from ensurepip import bootstrap" 2>/dev/null; then
            no_venv=$(command -v "$name")
        else
            command -v "$name"
            return
        fi
    done
    if [[ $no_venv ]]; then
        say "$no_venv cannot make virtual environments: install them with \"sudo apt install python3-venv\" and run make again."
    elif [[ $too_old ]]; then
        say "$too_old is too old: install Python 3.10 or newer and run make again."
    else
        say "There is no Python here: install Python 3.10 or newer and run make again."
    fi
    return 1
}

progress() { # pip's own lines as one line that is written over
    awk -v width="${COLUMNS:-80}" '
        /^ *(Collecting|Downloading|Building|Preparing|Installing)/ { printf "\r\033[K%s", substr("  " $0, 1, width - 1); fflush() }
        END { printf "\r\033[K" }' >&2
}

if ! "$folder/bin/python" -m pip --version >/dev/null 2>&1; then
    python=$(find_python)
    say "Making $folder with $python ..."
    "$python" -m venv --clear "$folder"
fi
say "Installing $what ..."
pip=("$folder/bin/python" -m pip install --disable-pip-version-check --no-input)
if [[ $folder == .venv ]]; then
    pip+=(--constraint constraints.txt)
fi
if [[ -t 2 ]]; then
    "${pip[@]}" --progress-bar off "$@" | progress
else
    "${pip[@]}" -qq "$@" # errors only
fi || {
    say "Installing $what failed for the reason above; mend it and run make again."
    exit 1
}
