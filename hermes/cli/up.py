"""python -m hermes up."""

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from hermes.cli.gateway import OPTIONS, gateway_options, run
from hermes.cli.ports import require_free
from hermes.cli.server import ending_with, local_server, wait_until_ready
from hermes.errors import InvalidConfiguration
from hermes.gateway.settings import GatewaySettings
from hermes.gateway.upstream import open_upstream
from hermes.settings import Settings

FOR_OTHERS = ("host", "published", "public_url", "forwarded_from", "no_auth")


@gateway_options(*(name for name in OPTIONS if name not in FOR_OTHERS))
def up(
    settings: GatewaySettings,
    no_store: Annotated[bool, typer.Option("--no-store", help="keep predictions in memory only")] = False,
) -> None:
    """Start the Cog server and a gateway before it, on this machine, until Ctrl-C. Predictions are kept in
    predictions/gateway.db, beside the folder of weights.
    """
    server_settings = Settings.load()
    if settings.store and no_store:
        raise InvalidConfiguration("--no-store", "--store is given, too; leave out one of them")
    if not no_store and not settings.store:
        store = store_beside(server_settings.weights_dir)
        make_folder(store.parent)
        settings = replace(settings, store=store)
    require_free(settings.host, settings.port)
    with local_server() as server:
        wait_until_ready(server)
        with ending_with(server):
            run(settings, [open_upstream(server.url, server_settings.slots)])


def make_folder(folder: Path) -> None:
    """Make the folder of the store. Raises InvalidConfiguration if that fails."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        problem = f"cannot make {folder}: {error.strerror}; name another file, or pass --no-store"
        raise InvalidConfiguration("--store", problem) from error


def store_beside(weights: Path) -> Path:
    """Where `up` keeps predictions: in a folder beside that of the weights."""
    return weights.absolute().parent / "predictions" / "gateway.db"
