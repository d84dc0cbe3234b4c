"""Manners of the libraries: nothing is fetched from a model hub, and nobody chats."""

from __future__ import annotations

import logging
import os
import warnings


def go_offline() -> None:
    """Keep transformers and datasets off the network: what is not in the folders is not there.

    To be called before they are imported.
    """
    os.environ["HF_HUB_OFFLINE"] = "1"
    os.environ["HF_DATASETS_OFFLINE"] = "1"
    # the worker's own threads are counted by training.threads
    os.environ["TOKENIZERS_PARALLELISM"] = "false"


def quiet() -> None:
    """Keep the libraries from chatting; their warnings stay, but for those that only their authors can heed."""
    warnings.filterwarnings("ignore", category=FutureWarning, module="transformers")
    import datasets
    import transformers

    transformers.logging.set_verbosity_warning()  # type: ignore[no-untyped-call]
    transformers.logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    logging.getLogger("transformers.modeling_utils").addFilter(_is_needed)
    logging.getLogger("accelerate").setLevel(logging.WARNING)
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # it warns at every step of what is meant
    datasets.disable_progress_bars()
    datasets.logging.set_verbosity(logging.CRITICAL)  # what it cannot read we say ourselves


def _is_needed(record: logging.LogRecord) -> bool:
    """Pass no table of what a model's files lack, for we say that ourselves; but of what does not fit."""
    text = record.getMessage()
    return "LOAD REPORT" not in text or "MISMATCH" in text or "CONVERSION" in text
