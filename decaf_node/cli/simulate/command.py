"""``decaf-node simulate``: a whole mesh in virtual time, before there is one."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

from decaf_node.cli.options import JsonOption
from decaf_node.cli.simulate.choices import Choices

DEFAULT = Choices()


def simulate(
    nodes: Annotated[int, typer.Option("--nodes", metavar="N", help="Nodes in the mesh.")] = DEFAULT.nodes,
    topology: Annotated[
        str, typer.Option("--topology", metavar="T", help="Who mixes with whom, as round.topology in the settings.")
    ] = DEFAULT.topology,
    rounds: Annotated[
        int, typer.Option("--rounds", metavar="R", help="Virtual time to play, in rounds of --round-seconds.")
    ] = DEFAULT.rounds,
    round_seconds: Annotated[
        float, typer.Option("--round-seconds", metavar="S", help="Virtual seconds of training a round.")
    ] = DEFAULT.round_seconds,
    spread: Annotated[
        Optional[float],  # noqa: UP045
        typer.Option(
            "--spread", metavar="X", help="Nodes differ in speed by up to this factor (default: as --faults has it)."
        ),
    ] = DEFAULT.spread,
    payload: Annotated[
        str,
        typer.Option(
            "--payload", metavar="P", help="none: a number a node is averaged. least-squares: small adapters learn."
        ),
    ] = DEFAULT.payload,
    faults: Annotated[
        str, typer.Option("--faults", metavar="F", help="none, mild or storm: sets all that goes wrong at once.")
    ] = DEFAULT.faults,
    loss: Annotated[
        Optional[float],  # noqa: UP045
        typer.Option("--loss", metavar="P", help="Part of the packets lost (default: as --faults has it)."),
    ] = DEFAULT.loss,
    cuts: Annotated[
        Optional[float],  # noqa: UP045
        typer.Option("--cuts", metavar="P", help="Part of the frames after which a stream breaks (same default)."),
    ] = DEFAULT.cuts,
    churn: Annotated[
        Optional[float],  # noqa: UP045
        typer.Option(
            "--churn",
            metavar="X",
            help="Faults that strike a node an hour, of the kinds of --faults; with none, nodes crash and leave.",
        ),
    ] = DEFAULT.churn,
    seeds: Annotated[
        int, typer.Option("--seeds", metavar="K", help="Independent runs; each seed is one.")
    ] = DEFAULT.seeds,
    first_seed: Annotated[
        int, typer.Option("--first-seed", metavar="S", help="The seed of the first run.")
    ] = DEFAULT.first_seed,
    jobs: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option("--jobs", metavar="J", help="Runs at once (default: one a core)."),
    ] = DEFAULT.jobs,
    ray: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option("--ray", metavar="ADDRESS", help="Run on this Ray cluster; auto: the one here, local: a new one."),
    ] = DEFAULT.ray,
    plot: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option("--plot", metavar="FILE", help="Draw distance and loss over the rounds: a PNG, SVG or PDF file."),
    ] = DEFAULT.plot,
    as_json: JsonOption = DEFAULT.as_json,
) -> int:
    """Simulate a mesh: the real machine of every node, on a virtual clock and network.

    Says how fast the mesh comes together, what it costs, and what faults do to it. What must always hold is checked
    after every step; the same seed plays the same run again. Exit code 70 if a check fails, with the command that
    replays that seed; Ctrl-C prints what was finished.

    Example: decaf-node simulate --nodes 50 --spread 20 --faults mild --seeds 10 --plot mesh.png
    """
    from decaf_node.cli.simulate.play import play

    return play(
        Choices(
            nodes, topology, rounds, round_seconds, spread, payload, faults, loss, cuts, churn,
            seeds, first_seed, jobs, ray, plot, as_json,
        )
    )  # fmt: skip
