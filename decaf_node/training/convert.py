"""A GGUF model as a clean folder: ``python -m decaf_node.training.convert FOLDER GGUF_FILE OUT``.

transformers reads GGUF slowly (seconds for 135 M parameters) each time; converted once to safetensors, the model loads
at once and can be saved, quantization left behind. For Llama-like language models.
"""

from __future__ import annotations

import argparse
import logging
import sys
import tempfile
from pathlib import Path

from decaf_node.errors import BadData, DecafError
from decaf_node.settings import ModelSection
from decaf_node.training.libraries import demand_libraries
from decaf_node.training.offline import go_offline


def convert(folder: Path, gguf_file: str, out: Path) -> None:
    """Write the GGUF model in ``folder`` to ``out`` as transformers saves a model, whole or not at all.

    Raises BadData if the file is no GGUF model, or ``out`` exists.
    """
    import torch
    from transformers import AutoModelForCausalLM

    from decaf_node.training.model import load_base, load_tokenizer

    if out.exists():
        raise BadData("convert.exists", f"{out} exists already; take it away first or choose another place.")
    section = ModelSection(path=folder, gguf_file=gguf_file)
    model = load_base(section, seed=0)
    config = type(model.config).from_dict(model.config.to_dict())
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    with torch.device("meta"):
        clean = AutoModelForCausalLM.from_config(config, dtype=torch.float32)  # type: ignore[no-untyped-call]
    clean.load_state_dict(model.state_dict(), assign=True)
    clean.tie_weights()
    clean.generation_config = model.generation_config
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".converting-", dir=out.parent) as scratch:
        whole = Path(scratch, "model")
        clean.save_pretrained(whole)
        load_tokenizer(section).save_pretrained(whole)
        whole.rename(out)


def main(arguments: list[str] | None = None) -> int:
    """Convert as the command line says; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m decaf_node.training.convert", description=__doc__)
    parser.add_argument("folder", type=Path, help="where the GGUF file lies")
    parser.add_argument("gguf_file", help="its name")
    parser.add_argument("out", type=Path, help="new folder for the converted model")
    given = parser.parse_args(arguments)
    logging.basicConfig(format="%(levelname)s %(message)s")
    go_offline()
    try:
        demand_libraries()
        convert(given.folder, given.gguf_file, given.out)
    except DecafError as error:
        logging.error("%s", error)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
