"""One question to a language model: ``python -m decaf_node.training.answer --model DIR [--adapter DIR] PROMPT``."""

from __future__ import annotations

import argparse
import logging
import sys
from pathlib import Path
from typing import Any

from decaf_node.errors import DecafError
from decaf_node.settings import ModelSection
from decaf_node.training.libraries import demand_libraries
from decaf_node.training.offline import go_offline, quiet


def answer(model: Any, tokenizer: Any, prompt: str, tokens: int = 32) -> str:
    """Return what the model answers, the likeliest token at each step, to ``prompt`` as it was trained to see it."""
    import torch

    from decaf_node.training.examples import prompt_tokens

    ids = torch.tensor([prompt_tokens(tokenizer, prompt)], device=next(model.parameters()).device)
    with torch.no_grad():
        out = model.generate(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=tokens,
            do_sample=False,
            pad_token_id=tokenizer.pad_token_id,
            eos_token_id=tokenizer.eos_token_id,
        )
    return str(tokenizer.decode(out[0, ids.shape[1] :], skip_special_tokens=True)).strip()


def main(arguments: list[str] | None = None) -> int:
    """Print one answer; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m decaf_node.training.answer", description=__doc__)
    parser.add_argument("--model", type=Path, required=True, help="folder of the base model")
    parser.add_argument("--adapter", type=Path, help="folder of an exported adapter")
    parser.add_argument("--tokens", type=int, default=32, help="longest answer")
    parser.add_argument("prompt")
    given = parser.parse_args(arguments)
    logging.basicConfig(format="%(levelname)s %(message)s")
    go_offline()
    try:
        demand_libraries()
        from decaf_node.training.export import load_exported
        from decaf_node.training.model import load_base, load_tokenizer

        quiet()
        if given.adapter:
            model, tokenizer = load_exported(given.adapter, given.model)
        else:
            section = ModelSection(path=given.model)
            model, tokenizer = load_base(section, seed=0).eval(), load_tokenizer(section)
    except DecafError as error:
        logging.error("%s", error)
        return error.exit_code
    print(answer(model, tokenizer, given.prompt, given.tokens))
    return 0


if __name__ == "__main__":
    sys.exit(main())
