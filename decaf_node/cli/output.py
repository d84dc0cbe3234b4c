"""Print for people and for programs: text, JSON documents and errors. A closed pipe ends the command quietly."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NoReturn

from decaf_node.daemon.documents import plain
from decaf_node.errors import DecafError

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

PIPE_CLOSED = 128 + 13  # what a shell reports of a program ended by SIGPIPE
UNBOUNDED_COLUMNS = 500  # where nobody looks, nothing is cut or wrapped


def print_json(document: Any) -> None:
    """Print ``document`` as one JSON document; numbers that JSON does not have become null."""
    print_text(json_text(document))


def json_text(document: Any) -> str:
    """Return ``document`` as JSON; see ``print_json``."""
    return json.dumps(plain(document), indent=2, ensure_ascii=False, allow_nan=False)


def print_text(text: str) -> None:
    _ending_with_the_pipe(lambda: print(text, flush=True))


def print_answer(document: Any, text: str, as_json: bool) -> None:
    """Print what a program wants, or what a person does."""
    print_text(json_text(document) if as_json else text)


def print_rich(*things: RenderableType) -> None:
    """Print tables and marked-up text; without colour where nobody looks, or where NO_COLOR is set."""

    def show() -> None:
        for thing in things:
            console().print(thing)
        sys.stdout.flush()

    _ending_with_the_pipe(show)


def console(to_errors: bool = False) -> Console:
    """Return a console on stdout, or on stderr."""
    from rich.console import Console

    stream = sys.stderr if to_errors else sys.stdout
    return Console(stderr=to_errors, highlight=False, width=None if stream.isatty() else UNBOUNDED_COLUMNS)


def print_error(error: DecafError, as_json: bool) -> None:
    """Say what is wrong: one sentence with its reason ID on stderr, or one JSON document on stdout."""
    if as_json:
        print_json({"error": {"reason": error.reason, "message": error.message}})
    else:
        print(f"decaf-node: {error}", file=sys.stderr, flush=True)


def _ending_with_the_pipe(show: Callable[[], None]) -> None:
    try:
        show()
    except BrokenPipeError:
        _leave_quietly()


def _leave_quietly() -> NoReturn:
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # else Python complains once more at its end
    raise SystemExit(PIPE_CLOSED)
