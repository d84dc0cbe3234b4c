"""The demo's language model: converted once from what was fetched, and asked before and after."""

from __future__ import annotations

import subprocess
from pathlib import Path

from decaf_node.cli.demo.assets import asset, made_once
from decaf_node.cli.demo.processes import last_words, start_python, stop_all

GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"
CONVERTED = "smollm2/model"


def is_converted(assets: Path) -> bool:
    return (assets / CONVERTED).is_dir()


def converted(assets: Path, log: Path) -> Path:
    """Return the folder of SmolLM2 as transformers saves it; the first time it is converted from the GGUF file."""
    source = asset(assets, f"smollm2/{GGUF}", flags=" ARGS=--llm").parent

    def convert(fresh: Path) -> None:
        ask(["-m", "decaf_node.training.convert", str(source), GGUF, str(fresh)], log)

    return made_once(assets, CONVERTED, convert)


def answer(model: Path, adapter: Path | None, prompt: str, log: Path) -> str:
    """Return what the model says to ``prompt``, with or without the adapter."""
    chosen = ["--adapter", str(adapter)] if adapter else []
    return ask(["-m", "decaf_node.training.answer", "--model", str(model), *chosen, "--", prompt], log).strip()


def ask(arguments: list[str], log: Path) -> str:
    """Run Python to its end and return what it prints. Raises its error if it fails."""
    process = start_python(arguments, log, stdout=subprocess.PIPE)
    try:
        said, _ = process.communicate()
    finally:
        stop_all([process])
    if process.returncode != 0:
        raise last_words(log, process.returncode)
    return said
