"""python -m hermes: run the Cog server of this folder without Docker, chat, manage weights, plan memory."""

import signal
import sys
from typing import NoReturn

import typer
from typer.exceptions import TyperException

from hermes.cli import gateway
from hermes.cli.notes import notes
from hermes.client.errors import PredictionFailed
from hermes.errors import HermesError, InvalidConfiguration

DONE, FAILED, MISUSE, INTERRUPTED = 0, 1, 2, 130

app = typer.Typer(add_completion=False, help=__doc__, pretty_exceptions_enable=False)
errors: tuple[type[Exception], ...] = (HermesError, PredictionFailed)

try:
    from hermes.cli import chat, cluster, plan, server, up, weights
    from hermes.devserver import ServerFailed
except ModuleNotFoundError as error:  # `pip install .[gateway]` brings what the gateway needs
    if not error.name or error.name.startswith("hermes"):
        raise
    app.command()(gateway.gateway)
    missing = error.name

    def unavailable(context: typer.Context) -> None:
        """Raises InvalidConfiguration."""
        problem = f"needs {missing}, which is not installed; run it in the repository after `make install`"
        raise InvalidConfiguration(str(context.info_name), problem)

    for name in ("predict", "serve", "up", "cluster", "chat", "weights", "plan"):
        anything = {"ignore_unknown_options": True, "allow_extra_args": True}
        app.command(name, help=f"Not installed: {missing}.", context_settings=anything)(unavailable)
else:
    for command in (server.predict, server.serve, gateway.gateway, up.up, cluster.cluster, chat.chat, plan.plan):
        app.command()(command)
    app.add_typer(weights.app, name="weights")
    errors = (*errors, ServerFailed)


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
        notes.print(f"{misuse.format_message()} (--help shows how)", markup=False)
        return MISUSE
    except errors as error:
        notes.print(str(error), markup=False)
        return FAILED
    except (KeyboardInterrupt, typer.Abort):
        return INTERRUPTED
