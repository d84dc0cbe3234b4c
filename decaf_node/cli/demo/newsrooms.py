"""Lay the demo out on disk: data and settings of each node, in a work folder with short paths."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from decaf_node.cli.demo.articles import Article
from decaf_node.cli.demo.recipe import Recipe, prompt
from decaf_node.cli.demo.shares import Deal
from decaf_node.cli.toml import toml
from decaf_node.places import Places

ALONE_EVALUATIONS = 3  # a node alone is soon as good as it gets, and measuring costs as much as training
ONE_PLACE_EVALUATIONS = 6


@dataclass(frozen=True)
class Newsroom:
    """One node. No two share an article. alone: settings for training without the mesh, measured less often."""

    name: str
    share: tuple[Article, ...]
    places: Places
    alone: Path
    log: Path


@dataclass(frozen=True)
class Layout:
    """Everything on disk. one_place: settings of a single trainer that holds the articles of all nodes."""

    newsrooms: tuple[Newsroom, ...]
    one_place: Path
    rounds: int


def lay_out(recipe: Recipe, dealt: Deal, rounds: int, seed: int, work: Path) -> Layout:
    """Write data and settings under ``work``; its name also names the mesh, so that two demos do not meet.

    The nodes themselves have no limit of rounds: the demo ends the mesh when the slowest has had ``rounds``, so that
    one that was restarted on the way still finds the others there.
    """
    _write_rows(work / "test.jsonl", dealt.test, recipe, dealt.labels)
    newsrooms = []
    for number, share in enumerate(dealt.shares, 1):
        folder = work / str(number)
        folder.mkdir()
        _write_rows(folder / "train.jsonl", share, recipe, dealt.labels)
        places = Places(folder / "config.toml", folder / "state", folder / "run")
        room = Newsroom(f"newsroom-{number}", share, places, folder / "alone.toml", folder / "log")
        document = _settings(recipe, dealt.labels, rounds, seed, work)
        document["node"] = {"name": room.name}
        places.config.write_text(toml(document), encoding="utf-8")
        document["round"] |= {"limit": rounds, "evaluate_every": every(rounds, ALONE_EVALUATIONS)}
        room.alone.write_text(toml(document), encoding="utf-8")
        newsrooms.append(room)
    return Layout(tuple(newsrooms), _write_one_place(recipe, dealt, rounds, seed, work), rounds)


def every(rounds: int, evaluations: int) -> int:
    """Return the rounds between evaluations: about ``evaluations`` in all, the last round among them."""
    fitting = [step for step in range(1, rounds + 1) if rounds % step == 0]
    return min(fitting, key=lambda step: abs(rounds / step - evaluations))


def _settings(recipe: Recipe, labels: Sequence[str], rounds: int, seed: int, work: Path) -> dict[str, dict[str, Any]]:
    return {
        "mesh": {"name": work.name},
        "listen": {"port": 0, "enrolment_port": 0},
        "discovery": {"interfaces": ["127.0.0.1"]},
        "model": recipe.model | {"labels": list(labels)},
        "lora": recipe.lora,
        "data": recipe.data | {"train": ["train.jsonl"], "evaluation": [str(work / "test.jsonl")]},
        "training": {"seed": seed, "threads": 1},
        "training.arguments": recipe.arguments,
        "round": {
            "steps": recipe.steps,
            "overlap": False,
            "evaluate_every": every(rounds, recipe.evaluations),
        },
        "store": {"save_every": 0},
    }


def _write_one_place(recipe: Recipe, dealt: Deal, rounds: int, seed: int, work: Path) -> Path:
    """All articles in one place, with as many steps a round as the nodes take together: the same work in all."""
    everything = tuple(article for share in dealt.shares for article in share)
    _write_rows(work / "all.jsonl", everything, recipe, dealt.labels)
    document = _settings(recipe, dealt.labels, rounds, seed, work)
    document["data"]["train"] = ["all.jsonl"]
    document["training.arguments"] = recipe.arguments | recipe.one_place
    document["round"] |= {
        "steps": recipe.steps * len(dealt.shares),
        "limit": rounds,
        "evaluate_every": every(rounds, ONE_PLACE_EVALUATIONS),
    }
    path = work / "one-place.toml"
    path.write_text(toml(document), encoding="utf-8")
    return path


def _write_rows(path: Path, articles: Sequence[Article], recipe: Recipe, labels: tuple[str, ...]) -> None:
    with path.open("w", encoding="utf-8") as file:
        for article in articles:
            if recipe.language:
                row = {"prompt": prompt(article.text, labels), "text": article.label, "label": article.label}
            else:
                row = {"text": article.text, "label": article.label}
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
