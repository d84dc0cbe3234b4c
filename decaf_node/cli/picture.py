"""What all pictures share: the kinds of files, colours, writing them, and nodes on a circle."""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from decaf_node.errors import TryAgain

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

KINDS = (".png", ".svg", ".pdf")
BLUE, ORANGE, GREY = "#0072B2", "#D55E00", "#8a8a8a"  # Okabe and Ito's, told apart by colour-blind people too
BESIDE = 0.15  # of a circle's radius: farther out, a name stands beside its node


def why_not(path: Path) -> str | None:
    """Say why no picture can be written to ``path``, and what to do; None if it can."""
    folder = path.absolute().parent
    if path.suffix.lower() not in KINDS:
        return f"No picture can be written to {path}; let its name end in {', '.join(KINDS)}."
    if not folder.is_dir():
        return f"There is no folder {folder}; make it, or name a file elsewhere."
    if path.is_dir() or not os.access(path if path.exists() else folder, os.W_OK):
        return f"{path} cannot be written; name another file."
    return None


def new_figure(width: float, height: float, title: str) -> Figure:
    """Return an empty figure of that many inches; names in the title are no formulas."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(title, fontsize=11, parse_math=False)
    return figure


def write(figure: Figure, path: Path, reason: str) -> None:
    """Write the file. Raises TryAgain ``reason``."""
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Glyph", category=UserWarning)  # a name in an unusual script
            figure.savefig(path)
    except OSError as error:
        raise TryAgain(reason, f"{path} cannot be written: {error.strerror}.") from error


def circle(count: int) -> list[tuple[float, float]]:
    """Return places for so many nodes, clockwise from the top."""
    angles = [math.pi / 2 - 2 * math.pi * number / count for number in range(count)]
    return [(math.cos(angle), math.sin(angle)) for angle in angles]


def around_a_circle(axes: Axes) -> None:
    """Show the circle and the room around it, and no axes."""
    axes.set(xlim=(-1.3, 1.3), ylim=(-1.3, 1.3), aspect="equal")
    axes.set_axis_off()


def draw_names(axes: Axes, names: Sequence[str], places: Sequence[tuple[float, float]]) -> None:
    """Write the names around the circle."""
    for name, (x, y) in zip(names, places, strict=True):
        side = "center" if abs(x) < BESIDE else "left" if x > 0 else "right"
        axes.text(1.07 * x, 1.09 * y, name, ha=side, va="center", fontsize=8, color="#333333", parse_math=False)
