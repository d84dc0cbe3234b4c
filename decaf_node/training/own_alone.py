"""What a node would know by itself: trained on its own data alone for so many local steps, and kept.

A run is gone on with where a shorter one of the same settings is there, as a node goes on after a restart: in a node
that trains on there is always some to add.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from decaf_node.errors import NotAllowed, TryAgain
from decaf_node.link import EXPORT_FOLDER, StartTraining
from decaf_node.settings import Settings
from decaf_node.training.alone import AFRESH, LinkToNobody, train
from decaf_node.training.base import canonical
from decaf_node.training.host import ADAPTER_FILE, TRAINER_FILE
from decaf_node.training.private.demands import wants_privacy
from decaf_node.training.spool import cannot_write, named_file

UNFINISHED = ".training-"
KEPT = 4  # runs; the others are removed, the oldest first


def own_alone(settings: Settings, base: str, steps: int, folder: Path, progress: Callable[[int], None]) -> Path:
    """Return the exported adapter after ``steps`` local steps; runs are kept in ``folder``.

    base: fingerprint of the base model. progress: called with the steps taken so far.

    Raises NotAllowed ``alone.external-trainer``, ``alone.private``, TryAgain ``alone.busy``, and what training does.
    """
    _check(settings)
    key = hashlib.sha256(canonical([base, _what_matters(settings)])).hexdigest()[:16]
    run = folder / f"{key}-{steps}"
    if not run.is_dir():
        try:
            with _held(folder):
                _make(settings, run, steps, _shorter(folder, key, steps), progress)
        except OSError as error:
            raise cannot_write(folder, error) from error
    return run / EXPORT_FOLDER


@contextmanager
def _held(folder: Path) -> Iterator[None]:
    """Hold ``folder`` against others that train here, and clear away what one that was killed has left."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        _lock(descriptor)
        for left in folder.glob(f"{UNFINISHED}*"):
            shutil.rmtree(left, ignore_errors=True)
        yield
    finally:
        os.close(descriptor)


def _lock(descriptor: int) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise TryAgain(
            "alone.busy", "Another decaf-node eval trains on this node's data alone; try again when it is done."
        ) from None


def _check(settings: Settings) -> None:
    if settings.training.trainer == "external":
        raise NotAllowed(
            "alone.external-trainer",
            "This node's trainer is a script of its own, and only that knows how it trains; train it without the "
            "callback, and compare the two adapters there.",
        )
    if wants_privacy(settings.privacy):
        raise NotAllowed(
            "alone.private",
            "Training once more on the same examples is not covered by the budget of privacy.epsilon; compare base and "
            "mesh only.",
        )


def _make(
    settings: Settings, run: Path, steps: int, before: tuple[int, Path | None], progress: Callable[[int], None]
) -> None:
    done, shorter = before
    start = AFRESH
    if shorter is not None:
        start = StartTraining(1, named_file(shorter / ADAPTER_FILE), named_file(shorter / TRAINER_FILE))
    with tempfile.TemporaryDirectory(prefix=UNFINISHED, dir=run.parent) as scratch:
        fresh = Path(scratch, "run")
        once = _once(settings, steps - done)
        train(once, LinkToNobody(once, lambda *_: None, start, fresh, lambda step: progress(done + step)))
        os.replace(fresh, run)
    if shorter is not None:
        shutil.rmtree(shorter, ignore_errors=True)
    for old in sorted(_runs(run.parent), key=lambda path: path.stat().st_mtime)[:-KEPT]:
        shutil.rmtree(old, ignore_errors=True)


def _shorter(folder: Path, key: str, steps: int) -> tuple[int, Path | None]:
    """Return the longest run of the same settings with less steps, and how many it has."""
    lengths = [int(path.name.partition("-")[2]) for path in _runs(folder) if path.name.startswith(key)]
    done = max((length for length in lengths if length < steps), default=0)
    return done, folder / f"{key}-{done}" if done else None


def _runs(folder: Path) -> list[Path]:
    return [path for path in folder.glob("*-*") if not path.name.startswith(".")]


def _once(settings: Settings, steps: int) -> Settings:
    """Return the settings of one round of so many steps, in one process: it takes the batches of all, one by one.

    Labels weigh as they are: who is alone has none to leave to others.
    """
    document = settings.model_dump(mode="json")
    training, arguments = document["training"], document["training"]["arguments"]
    training["balance_labels"] = False
    if training["processes"] > 1:
        arguments["gradient_accumulation_steps"] = (
            arguments.get("gradient_accumulation_steps", 1) * training["processes"]
        )
        training["processes"] = 1
    # the round after the last is the first that would be evaluated: there is nothing to see in it yet
    document["round"] |= {"steps": steps, "limit": 1, "evaluate_every": 2}
    return Settings.model_validate(document)


def _what_matters(settings: Settings) -> object:
    """Return what a run depends on, but for the content of the data files: a node goes on when they grow, too."""
    document = settings.model_dump(mode="json", include={"model", "lora", "data", "training", "mixing"})
    del document["model"]["device"], document["data"]["cache_entries"]
    del document["training"]["threads"], document["training"]["balance_labels"]
    document["mixing"] = document["mixing"]["initial_a_seed"]
    return document
