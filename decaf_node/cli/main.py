"""The command ``decaf-node``: parse, call, print. Errors become one sentence and an exit code here, nowhere else."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Iterable
from importlib import import_module
from typing import TYPE_CHECKING, Any, cast

import typer

from decaf_node.cli.output import print_error
from decaf_node.errors import Bug, DecafError, UsageError

if TYPE_CHECKING:
    from types import TracebackType

INTERRUPTED = 130

# What typer raises where the command line does not fit. Newer versions carry their own copy of click's class, so it
# is reached through a name that both have.
Misuse = cast("type[Exception]", typer.BadParameter.__base__)

COMMANDS = {  # by name: where it is in decaf_node.cli
    "init": ("founding", "init"),
    "join": ("joining", "join"),
    "run": ("run", "run"),
    "status": ("looking", "status"),
    "peers": ("looking", "peers"),
    "rounds": ("looking", "rounds"),
    "watch": ("watching", "watch"),
    "top": ("top.command", "top"),
    "plot": ("plot.command", "plot"),
    "dashboard": ("dashboard", "dashboard"),
    "doctor": ("doctor", "doctor"),
    "pause": ("acting", "pause"),
    "resume": ("acting", "resume"),
    "mix": ("acting", "mix"),
    "eval": ("evaluate.command", "evaluate"),
    "reload": ("acting", "reload"),
    "log-level": ("acting", "log_level"),
    "leave": ("acting", "leave"),
    "invite": ("members", "invite"),
    "approve": ("members", "approve"),
    "revoke": ("members", "revoke"),
    "export": ("export", "export"),
    "config": ("config", "app"),
    "plan": ("plan.command", "plan"),
    "simulate": ("simulate.command", "simulate"),
    "demo": ("demo.command", "demo"),
    "version": ("version", "version"),
}


def command_line(names: Iterable[str]) -> typer.Typer:
    """Return the command line of these commands. Each costs its imports, and typer a look at its parameters."""
    app = typer.Typer(
        name="decaf-node",
        help="Fine-tune with LoRA together with your neighbours: no server, and the data stays where it is.",
        epilog="Try it: decaf-node demo",
        add_completion=False,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback()(lambda: None)  # without it typer drops the name of a command that is alone
    for name in names:
        module, attribute = COMMANDS[name]
        found = getattr(import_module(f"decaf_node.cli.{module}"), attribute)
        if isinstance(found, typer.Typer):
            app.add_typer(found, name=name)
        else:
            app.command(name)(found)
    return app


def main(arguments: list[str] | None = None) -> int:
    """Run one command; return its exit code (DESIGN: 0 done, 64 usage, ... 78 bad settings, 130 interrupted)."""
    given = sys.argv[1:] if arguments is None else arguments
    names = given[:1] if given and given[0] in COMMANDS else COMMANDS
    try:
        code = command_line(names)(args=given or ["--help"], prog_name="decaf-node", standalone_mode=False)
    except DecafError as error:
        return _told(error, given)
    except Misuse as error:
        return _told(UsageError("usage.bad-command-line", _sentence(error)), given)
    except (KeyboardInterrupt, typer.Abort):
        return INTERRUPTED
    except Exception as error:  # noqa: BLE001 - the last boundary: a person never sees a traceback
        return _told(Bug("bug.unexpected", _whereabouts(error)), given)
    return code if isinstance(code, int) else 0


def _told(error: DecafError, given: list[str]) -> int:
    print_error(error, as_json="--json" in given)
    return error.exit_code


def _sentence(error: Any) -> str:
    command = error.ctx.command_path if error.ctx else "decaf-node"
    problem = error.format_message().rstrip(".")
    return f"{problem}; see {command} --help."


def _whereabouts(error: Exception) -> str:
    place = traceback.extract_tb(cast("TracebackType", error.__traceback__))[-1]
    return (
        f"Something that cannot happen has happened, {type(error).__name__} at {place.filename}:{place.lineno}: {error}"
        "; please report it."
    )


if __name__ == "__main__":
    raise SystemExit(main())
