"""The command line as a person or a script meets it: exit codes, sentences, JSON, start-up."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.command import PROGRAM, decaf_node

COMMANDS = (
    *("init", "join", "run", "status", "peers", "rounds", "top", "pause", "resume", "invite", "approve", "revoke"),
    *("export", "plot", "eval", "plan", "config check", "config backup-ca", "config restore-ca", "demo", "version"),
)
HEAVY = ("torch", "transformers", "peft", "datasets", "numpy", "matplotlib")


def test_help_names_every_command() -> None:
    shown = decaf_node("--help")
    assert shown.returncode == 0
    for command in COMMANDS:
        assert f"\n  {command.split()[0]} " in shown.stdout


def test_without_arguments_it_shows_the_help() -> None:
    assert decaf_node().stdout == decaf_node("--help").stdout


@pytest.mark.parametrize("command", COMMANDS)
def test_each_help_has_an_example(command: str) -> None:
    shown = decaf_node(*command.split(), "--help")
    assert shown.returncode == 0
    assert f"Example: decaf-node {command}" in shown.stdout
    assert "..." not in shown.stdout


@pytest.mark.parametrize(
    "arguments",
    [("bogus",), ("status", "--bogus"), ("rounds", "--limit", "many"), ("export",), ("config",), ("status", "more")],
)
def test_misuse_is_one_sentence_and_64(arguments: tuple[str, ...]) -> None:
    done = decaf_node(*arguments)
    assert done.returncode == 64
    assert done.stdout == ""
    assert done.stderr.startswith("decaf-node: ")
    assert done.stderr.endswith("--help. [usage.bad-command-line]\n")
    assert done.stderr.count("\n") == 1


def test_misuse_with_json_is_one_document() -> None:
    done = decaf_node("rounds", "--limit", "0", "--json")
    assert done.returncode == 64
    assert json.loads(done.stdout)["error"]["reason"] == "usage.bad-command-line"
    assert done.stderr == ""


@pytest.mark.slow
@pytest.mark.parametrize("command", ["status", "peers", "rounds", "eval", "pause", "resume", "invite", "approve"])
def test_without_a_daemon_it_is_69(command: str, tmp_path: Path) -> None:
    done = decaf_node(command, "--runtime", tmp_path)
    assert done.returncode == 69
    assert done.stderr.count("\n") == 1
    assert str(tmp_path) in done.stderr
    assert done.stderr.endswith("[daemon.not-running]\n")
    as_json = decaf_node(command, "--runtime", tmp_path, "--json")
    assert json.loads(as_json.stdout)["error"]["reason"] == "daemon.not-running"


def test_a_runtime_folder_too_long_for_a_socket_is_78(tmp_path: Path) -> None:
    done = decaf_node("status", "--runtime", tmp_path / ("x" * 120))
    assert done.returncode == 78
    assert "[settings.runtime-path-too-long]" in done.stderr


def test_run_without_settings_is_78(tmp_path: Path) -> None:
    done = decaf_node("run", "--config", tmp_path / "none.toml", "--state", tmp_path, "--runtime", tmp_path)
    assert done.returncode == 78
    assert "[settings.missing]" in done.stderr


def test_version_prints_what_is_installed() -> None:
    versions = json.loads(decaf_node("version", "--json").stdout)
    assert versions["python"] == ".".join(map(str, sys.version_info[:3]))
    assert {"decaf-node", "torch", "grpcio"} <= set(versions)
    assert f"python        {versions['python']}" in decaf_node("version").stdout


@pytest.mark.parametrize("arguments", ["--help", "status", "demo --help", "config check", "version"])
def test_nothing_heavy_is_imported(arguments: str, tmp_path: Path) -> None:
    imported = subprocess.run(
        [sys.executable, "-X", "importtime", *PROGRAM[1:], *arguments.split()],
        capture_output=True,
        text=True,
        env=os.environ | {"XDG_RUNTIME_DIR": str(tmp_path), "XDG_CONFIG_HOME": str(tmp_path)},
    ).stderr
    packages = {line.rsplit("|")[-1].strip().split(".")[0] for line in imported.splitlines() if "|" in line}
    assert "typer" in packages
    assert packages.isdisjoint(HEAVY)


def test_help_imports_nothing_of_ours_but_the_commands() -> None:
    imported = subprocess.run(
        [sys.executable, "-X", "importtime", *PROGRAM[1:], "--help"], capture_output=True, text=True
    ).stderr
    packages = {line.rsplit("|")[-1].strip().split(".")[0] for line in imported.splitlines() if "|" in line}
    assert packages.isdisjoint({"grpc", "pydantic", "rich"})


def test_a_closed_pipe_is_no_error() -> None:
    done = subprocess.run(
        ["bash", "-c", 'exec 3> >(true); wait $!; "$@" >&3; echo $? >&2', "bash", *PROGRAM, "version", "--json"],
        capture_output=True,
        text=True,
    )
    assert done.stderr == "141\n"


def test_one_command_loads_no_other() -> None:
    code = "import sys; from decaf_node.cli.main import main; main(['version']); print([*sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = [name for name in ("simulate.command", "dashboard", "version") if f"decaf_node.cli.{name}'" in done.stdout]
    assert loaded == ["version"]
