"""The demo from its beginning to its end: prepare, run the mesh, compare, tell."""

from __future__ import annotations

import os
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from decaf_node.cli.demo import language, mesh
from decaf_node.cli.demo.articles import read_file, read_topics, without_duplicates
from decaf_node.cli.demo.assets import asset, find_assets, own_model
from decaf_node.cli.demo.baselines import Baselines
from decaf_node.cli.demo.folders import make_output, work_folder
from decaf_node.cli.demo.founding import make_mesh
from decaf_node.cli.demo.newsrooms import Layout, lay_out
from decaf_node.cli.demo.plot import draw
from decaf_node.cli.demo.recipe import NODES, Recipe, classifier, language_model, own_classifier, prompt
from decaf_node.cli.demo.report import Answers, conclusion, introduction, whereabouts
from decaf_node.cli.demo.results import gather
from decaf_node.cli.demo.shares import Deal, deal
from decaf_node.cli.demo.view import View, node_table
from decaf_node.cli.ending import ending_cleanly
from decaf_node.cli.output import console, print_json, print_rich
from decaf_node.daemon.exporting import copy_adapter

if TYPE_CHECKING:
    from rich.console import Console


@dataclass(frozen=True)
class Choices:
    """The options of the command."""

    llm: bool
    iid: bool
    model: Path | None
    data: Path | None
    label_column: str
    text_column: str
    assets: Path | None
    output: Path | None
    rounds: int | None
    seed: int
    keep: bool
    as_json: bool


def play(choices: Choices) -> None:
    """Run the whole demo and print what came of it. Nothing of it runs any more when this returns or raises."""
    started = time.monotonic()
    screen = console(to_errors=choices.as_json)
    with ending_cleanly(), work_folder(choices.keep) as work:
        recipe, dealt = prepare(choices, work, screen)
        layout = lay_out(recipe, dealt, choices.rounds or recipe.rounds, choices.seed, work)
        output = make_output(choices.output)
        make_mesh(layout.newsrooms)
        screen.print(introduction(layout.newsrooms, len(dealt.test)))
        with View(screen, layout.rounds) as view:
            nodes = run_mesh(layout, view)
            exporter = next(node.newsroom for node in nodes if node.done)
            copy_adapter(exporter.places.state / "export" / "adapter", output / "adapter")
            baselines = run_baselines(layout, work / "alone.log", view)
            answers = ask_before_and_after(recipe, dealt, output / "adapter", work / "answers.log", view)
        results = gather(nodes, baselines, layout.rounds, dealt, bool(recipe.one_place))
        draw(output / "curves.png", nodes, baselines)
        seconds = time.monotonic() - started
        if choices.as_json:
            places = {"seconds": seconds, "plot": str(output / "curves.png"), "adapter": str(output / "adapter")}
            print_json(results.document() | places | (asdict(answers) if answers else {}))
        else:
            print_rich(
                conclusion(results, answers, seconds), whereabouts(output, exporter.name, Path(recipe.model["path"]))
            )
        if choices.keep:
            screen.print(f"The folders of the nodes are kept in {work}.")


def prepare(choices: Choices, work: Path, screen: Console) -> tuple[Recipe, Deal]:
    """Find model and text, and deal the text out. Raises BadData."""
    assets = find_assets(choices.assets, os.environ)
    recipe = choose_recipe(choices, assets, work, screen)
    if choices.data is None:
        articles = read_topics(asset(assets, "bbcnews/data"))
    else:
        articles = read_file(choices.data, choices.text_column, choices.label_column)
    dealt = deal(without_duplicates(articles), NODES, recipe.share, recipe.test, choices.iid, choices.seed)
    return recipe, dealt


def choose_recipe(choices: Choices, assets: Path, work: Path, screen: Console) -> Recipe:
    model = own_model(choices.model) if choices.model else None
    if choices.llm:
        if model is None and not language.is_converted(assets):
            screen.print("Converting SmolLM2-135M once; this takes half a minute ...")
        return language_model(model or language.converted(assets, work / "convert.log"), choices.iid)
    if model is not None:
        return own_classifier(model, choices.iid)
    return classifier(asset(assets, "minilm"), choices.iid)


def run_mesh(layout: Layout, view: View) -> list[mesh.Node]:
    """Run the four nodes to the end of their rounds. Raises the error of a node if none gets there."""
    nodes: list[mesh.Node] = []
    try:
        for room in layout.newsrooms:
            nodes += [mesh.start(room, layout.rounds)]  # one by one, so that after Ctrl-C it is known who runs
        mesh.watch(nodes, view.nodes)
    finally:
        mesh.stop(nodes)
    for node in nodes:
        if node.done:
            node.record.end_where_measured()
    view.say(node_table(nodes, layout.rounds))
    return nodes


def run_baselines(layout: Layout, log: Path, view: View) -> Baselines:
    """Train each newsroom alone, and one place with everything."""
    baselines = Baselines(layout)
    baselines.train(log, lambda so_far: view.work("To compare: each alone, and all in one place", so_far.done))
    return baselines


def ask_before_and_after(recipe: Recipe, dealt: Deal, adapter: Path, log: Path, view: View) -> Answers | None:
    """Ask a language model about the first test article, without and with the adapter; ask others nothing."""
    if not recipe.language:
        return None
    view.work("One question, before and after")
    article, model = dealt.test[0], Path(recipe.model["path"])
    question = prompt(article.text, dealt.labels)
    before = language.answer(model, None, question, log)
    after = language.answer(model, adapter, question, log)
    return Answers(question, article.label, before, after)
