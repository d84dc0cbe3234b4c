"""The command ``decaf-node``: parse, call, print. Errors become one sentence and an exit code here, nowhere else."""

from __future__ import annotations

import sys
import traceback
from typing import TYPE_CHECKING, Any, cast

import typer

from decaf_node.cli import (
    acting,
    config,
    dashboard,
    doctor,
    export,
    founding,
    joining,
    looking,
    members,
    run,
    version,
    watching,
)
from decaf_node.cli.demo.command import demo
from decaf_node.cli.evaluate.command import evaluate
from decaf_node.cli.output import print_error
from decaf_node.cli.plan.command import plan
from decaf_node.cli.plot.command import plot
from decaf_node.cli.simulate.command import simulate
from decaf_node.cli.top.command import top
from decaf_node.errors import Bug, DecafError, UsageError

if TYPE_CHECKING:
    from types import TracebackType

INTERRUPTED = 130

# What typer raises where the command line does not fit. Newer versions carry their own copy of click's class, so it
# is reached through a name that both have.
Misuse = cast("type[Exception]", typer.BadParameter.__base__)

app = typer.Typer(
    name="decaf-node",
    help="Fine-tune with LoRA together with your neighbours: no server, and the data stays where it is.",
    epilog="Try it: decaf-node demo",
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("init")(founding.init)
app.command("join")(joining.join)
app.command("run")(run.run)
app.command("status")(looking.status)
app.command("peers")(looking.peers)
app.command("rounds")(looking.rounds)
app.command("watch")(watching.watch)
app.command("top")(top)
app.command("plot")(plot)
app.command("dashboard")(dashboard.dashboard)
app.command("doctor")(doctor.doctor)
app.command("pause")(acting.pause)
app.command("resume")(acting.resume)
app.command("mix")(acting.mix)
app.command("eval")(evaluate)
app.command("reload")(acting.reload)
app.command("log-level")(acting.log_level)
app.command("leave")(acting.leave)
app.command("invite")(members.invite)
app.command("approve")(members.approve)
app.command("revoke")(members.revoke)
app.command("export")(export.export)
app.add_typer(config.app, name="config")
app.command("plan")(plan)
app.command("simulate")(simulate)
app.command("demo")(demo)
app.command("version")(version.version)


def main(arguments: list[str] | None = None) -> int:
    """Run one command; return its exit code (DESIGN: 0 done, 64 usage, ... 78 bad settings, 130 interrupted)."""
    given = sys.argv[1:] if arguments is None else arguments
    try:
        code = app(args=given or ["--help"], prog_name="decaf-node", standalone_mode=False)
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
