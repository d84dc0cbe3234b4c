"""Tiny models with random weights, and data to train them on; everything real but small."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import BertConfig, BertModel, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from decaf_node.settings import Settings

WORDS = [
    *[
        "the",
        "cat",
        "dog",
        "sat",
        "ran",
        "on",
        "a",
        "mat",
        "road",
        "game",
        "team",
        "goal",
        "vote",
        "law",
        "party",
        "chip",
        "code",
        "net",
        "film",
        "star",
        "song",
        "bank",
        "firm",
    ],
    *["sport", "politics", "tech", "what", "is", "this", "about"],
]
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "<end>", "<user>", "<assistant>"]
TEMPLATE = (
    "{% for m in messages %}<{{ m['role'] }}> {{ m['content'] }} <end> {% endfor %}"
    "{% if add_generation_prompt %}<assistant> {% endif %}"
)
LABELS = ("sport", "politics", "tech")
TEXTS = {"sport": "the team ran a game goal", "politics": "the party vote on a law", "tech": "a chip code net"}


def make_tokenizer(chat: bool = False, frame: bool = False) -> PreTrainedTokenizerFast:
    """A tokenizer of words. frame: put [CLS] and [SEP] around, as BERT's does."""
    vocabulary = {word: number for number, word in enumerate([*SPECIAL, *WORDS])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    if frame:
        tokenizer.post_processor = processors.TemplateProcessing(
            single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
        )
    fast = PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]", eos_token=None if frame else "<end>"
    )
    if chat:
        fast.chat_template = TEMPLATE
    return fast


def make_bert(folder: Path, layers: int = 2, dropout: float = 0.0, seed: int = 0) -> Path:
    torch.manual_seed(seed)
    config = BertConfig(
        vocab_size=len(SPECIAL) + len(WORDS),
        hidden_size=16,
        num_hidden_layers=layers,
        num_attention_heads=2,
        intermediate_size=24,
        max_position_embeddings=32,
        hidden_dropout_prob=dropout,
        attention_probs_dropout_prob=dropout,
    )
    BertModel(config).save_pretrained(folder)
    make_tokenizer(frame=True).save_pretrained(folder)
    return folder


def make_llama(folder: Path, chat: bool = False, layers: int = 2, seed: int = 0) -> Path:
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=len(SPECIAL) + len(WORDS),
        hidden_size=16,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        intermediate_size=24,
        max_position_embeddings=64,
        tie_word_embeddings=False,
        bos_token_id=None,
        eos_token_id=4,
        pad_token_id=0,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    make_tokenizer(chat=chat).save_pretrained(folder)
    return folder


def write_rows(path: Path, rows: Sequence[Mapping[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def topic_rows(copies: int = 8, labels: Sequence[str] = LABELS) -> list[dict[str, Any]]:
    """Rows of a learnable task, none like another."""
    words = ["cat", "dog", "mat", "road", "film", "star", "song", "bank", "firm", "is"]
    return [
        {"text": f"{TEXTS[label]} {words[number % 10]} {words[number // 10 % 10]}", "label": label}
        for number in range(copies)
        for label in labels
    ]


def classifier_settings(model: Path, data: Path, /, **sections: Mapping[str, Any]) -> Settings:
    """Settings of a mean-pooled classifier; ``sections`` are laid over them key by key."""
    return settings_of(
        {
            "model": {
                "path": model,
                "task": "sequence-classification",
                "pooling": "mean",
                "labels": LABELS,
                "device": "cpu",
            },
            "data": {"train": [data], "evaluation_fraction": 0.25, "max_length": 16},
        },
        sections,
    )


def causal_settings(model: Path, data: Path, /, **sections: Mapping[str, Any]) -> Settings:
    return settings_of(
        {
            "model": {"path": model, "device": "cpu"},
            "data": {"train": [data], "evaluation_fraction": 0.25, "max_length": 16},
        },
        sections,
    )


def settings_of(document: dict[str, Any], sections: Mapping[str, Mapping[str, Any]]) -> Settings:
    common: dict[str, Any] = {
        "training": {"threads": 1, "arguments": {"per_device_train_batch_size": 4, "learning_rate": 1e-2}},
        "round": {"steps": 2, "overlap": False},
        "lora": {"r": 2, "lora_alpha": 4},
    }
    for name, section in [*document.items(), *sections.items()]:
        common[name] = {**common.get(name, {}), **section}
    return Settings.model_validate(common)
