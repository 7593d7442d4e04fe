"""python -m hermes up."""

from hermes.cli.gateway import Alias, Model, Port, run
from hermes.cli.ports import require_free
from hermes.cli.server import local_server, wait_until_ready
from hermes.gateway.settings import GatewaySettings
from hermes.gateway.upstream import open_upstream
from hermes.settings import Settings


def up(port: Port = 8000, model: Model = "local/model", alias: Alias = None) -> None:
    """Start the Cog server and a gateway before it, on this machine, until Ctrl-C."""
    settings = GatewaySettings(port=port, model=model, aliases=tuple(alias or ()))
    require_free(settings.host, port)
    with local_server() as server:
        wait_until_ready(server)
        run(settings, [open_upstream(server.url, Settings.load().slots)])
