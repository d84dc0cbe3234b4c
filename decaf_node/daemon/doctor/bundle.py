"""The support archive: what the doctor has found, and what surrounds it. No key, token, adapter or data is in it."""

from __future__ import annotations

import io
import json
import platform
import re
import shutil
import subprocess
import sys
import tarfile
import time
from collections.abc import Mapping
from dataclasses import asdict, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from decaf_node.daemon.doctor.examine import Examination
from decaf_node.daemon.doctor.finding import Finding
from decaf_node.daemon.documents import plain
from decaf_node.daemon.durable import PRIVATE_FILE, disk_errors, write_private
from decaf_node.settings import Settings

PACKAGES = ("decaf-node", "torch", "transformers", "peft", "accelerate", "datasets", "grpcio", "protobuf", "zeroconf")
SECRET_WORDS = ("token", "secret", "password", "passphrase", "credential", "api_key")
TAKEN_OUT = "(taken out)"
IN_ADDRESS = re.compile("//[^/@ ]*@")  # http://who:password@host
LOG_LINES = 500
LOG_SECONDS = 10.0


def write_bundle(path: Path, examination: Examination) -> list[str]:
    """Write the archive at ``path``, whole or not at all; return the names in it.

    Raises what ``durable.disk_errors`` does.
    """
    parts = contents(examination)
    with disk_errors(path.parent):
        write_private(path, _packed(parts))
    return list(parts)


def contents(examination: Examination) -> dict[str, bytes]:
    """Return the files of the archive. Each is made of named things; no file of the node is copied."""
    said = examination.said.state
    parts: dict[str, Any] = {
        "doctor.json": [asdict(without_data(finding)) for finding in examination.findings],
        "versions.json": versions(),
    }
    if examination.settings is not None:
        parts["settings.json"] = without_secrets(examination.settings)
    if said is not None:
        parts["status.json"] = asdict(said.status)
        parts["peers.json"] = [asdict(peer) for peer in said.peers]
        parts["problems.json"] = [asdict(problem) for problem in said.problems]
        parts["rounds.json"] = [asdict(row) for row in examination.said.rounds]
    files = {
        name: json.dumps(plain(part), indent=2, ensure_ascii=False, allow_nan=False).encode()
        for name, part in parts.items()
    }
    log = last_log_lines()
    return {**files, **({"log.txt": log.encode()} if log else {})}


def without_secrets(settings: Settings) -> Any:
    """Return the settings; what is called a token, a password or the like, at any depth, is taken out."""
    return _cleared(settings.model_dump(mode="json"))


def _cleared(value: Any) -> Any:
    match value:
        case dict():
            return {key: TAKEN_OUT if _is_secret(str(key)) else _cleared(inner) for key, inner in value.items()}
        case list():
            return [_cleared(inner) for inner in value]
        case str():
            return IN_ADDRESS.sub(f"//{TAKEN_OUT}@", value)
        case _:
            return value


def _is_secret(key: str) -> bool:
    return any(word in key.lower() for word in SECRET_WORDS)


def without_data(finding: Finding) -> Finding:
    """Return the finding; one about the data without its sentence, which may quote a row."""
    return replace(finding, message=TAKEN_OUT) if finding.layer == "data" and finding.mark != "well" else finding


def versions() -> Mapping[str, str]:
    """Return the versions of this system, of Python and of the packages that matter."""
    system = {"system": platform.platform(), "machine": platform.machine(), "python": sys.version}
    return system | {package: _version(package) for package in PACKAGES}


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def last_log_lines() -> str:
    """Return the last lines of the service in the journal; empty where there is none. The trainer's own are left out:
    a user's script may print anything."""
    journal = shutil.which("journalctl")
    if journal is None:
        return ""
    command = [journal, "--unit=decaf-node", f"--lines={LOG_LINES}", "--no-pager", "--output=short-iso", "--quiet"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=LOG_SECONDS, check=False)  # noqa: S603 - words of ours
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return "".join(line for line in done.stdout.splitlines(keepends=True) if "trainer: " not in line)


def _packed(parts: Mapping[str, bytes]) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        for name, content in parts.items():
            entry = tarfile.TarInfo(f"decaf-node-doctor/{name}")
            entry.size, entry.mtime, entry.mode = len(content), int(time.time()), PRIVATE_FILE
            archive.addfile(entry, io.BytesIO(content))
    return packed.getvalue()
