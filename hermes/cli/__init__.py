"""python -m hermes: run the Cog server of this folder without Docker, chat, manage weights, plan memory."""

import signal
import sys
from typing import NoReturn

import typer
from typer.exceptions import TyperException

from hermes.cli import chat, cluster, gateway, plan, server, weights
from hermes.client.errors import PredictionFailed
from hermes.devserver import ServerFailed
from hermes.errors import HermesError

DONE, FAILED, MISUSE, INTERRUPTED = 0, 1, 2, 130

app = typer.Typer(add_completion=False, help=__doc__, pretty_exceptions_enable=False)
app.command()(server.predict)
app.command()(server.serve)
app.command()(gateway.gateway)
app.command()(gateway.up)
app.command()(cluster.cluster)
app.command()(chat.chat)
app.add_typer(weights.app, name="weights")
app.command()(plan.plan)


def run(commands: typer.Typer = app) -> NoReturn:
    """Run a command of this process, and exit. SIGINT and SIGTERM end its server, too.

    A shell starts its background jobs with SIGINT ignored.
    """
    for each in (signal.SIGINT, signal.SIGTERM):
        signal.signal(each, signal.default_int_handler)
    sys.exit(main(commands=commands))


def main(arguments: list[str] | None = None, commands: typer.Typer = app) -> int:
    """Run a command. Returns 0 done, 1 failed (one line on standard error), 2 misuse, 130 interrupted."""
    try:
        status = commands(args=arguments, standalone_mode=False)  # 130 for Ctrl-C in a command
        return int(status or DONE)
    except TyperException as misuse:
        server.notes.print(f"{misuse.format_message()} (--help shows how)", markup=False)
        return MISUSE
    except (HermesError, ServerFailed, PredictionFailed) as error:
        server.notes.print(str(error), markup=False)
        return FAILED
    except (KeyboardInterrupt, typer.Abort):
        return INTERRUPTED
