"""python -m hermes gateway: Replicate's and OpenAI's APIs and a page, before servers that answer."""

from collections.abc import Sequence
from contextlib import suppress
from typing import Annotated, Any

import typer

from hermes.cli.notes import notes
from hermes.cli.ports import require_free
from hermes.gateway.settings import GatewaySettings
from hermes.gateway.upstream import Upstream, open_upstream
from hermes.logs import log_to_stderr

Host = Annotated[str, typer.Option(help="the address to listen on; another than this machine's needs a token")]
Port = Annotated[int, typer.Option(help="the port to listen on", min=1, max=65535)]
Model = Annotated[str, typer.Option(help="owner/name under which clients find the model")]
Alias = Annotated[list[str] | None, typer.Option(help="one more name of the model, such as gpt-4o; repeatable")]
Origin = Annotated[list[str] | None, typer.Option(help="a web page's origin that may ask, by CORS; repeatable")]
NoAuth = Annotated[bool, typer.Option("--no-auth", help="serve other machines without a token")]
Anywhere = Annotated[bool, typer.Option("--webhooks-anywhere", help="send webhooks to other machines, too")]


def gateway(
    upstream: Annotated[
        list[str], typer.Option(help="http://HOST:PORT of a Cog server, or replicate:OWNER/NAME; repeatable")
    ],
    host: Host = "127.0.0.1",
    port: Port = 8000,
    published: Annotated[
        str | None, typer.Option(metavar="HOST:PORT", help="where others reach it, if a container publishes its port")
    ] = None,
    model: Model = "local/model",
    alias: Alias = None,
    slots: Annotated[int, typer.Option(help="predictions at once at each upstream")] = 32,
    max_waiting: Annotated[int, typer.Option(help="callers in line")] = 1000,
    max_wait: Annotated[float, typer.Option(help="seconds in line")] = 600.0,
    origin: Origin = None,
    no_auth: NoAuth = False,
    webhooks_anywhere: Anywhere = False,
) -> None:
    """Serve Replicate's and OpenAI's APIs and a page until Ctrl-C. HERMES_GATEWAY_TOKENS has tokens,
    comma-separated, or HERMES_GATEWAY_TOKENS_FILE names a file of them.
    """
    more = {"published": published, "max_waiting": max_waiting, "max_wait": max_wait}
    settings = settings_of(host, port, model, alias, origin, no_auth, webhooks_anywhere, **more)
    run(settings, [open_upstream(name, slots) for name in upstream])


def settings_of(
    host: str,
    port: int,
    model: str,
    alias: list[str] | None,
    origin: list[str] | None,
    no_auth: bool,
    webhooks_anywhere: bool,
    **more: Any,
) -> GatewaySettings:
    """The settings that the options of a command ask for. Raises InvalidConfiguration, see GatewaySettings."""
    return GatewaySettings(
        host=host,
        port=port,
        model=model,
        aliases=tuple(alias or ()),
        no_auth=no_auth,
        origins=tuple(origin or ()),
        webhooks_anywhere=webhooks_anywhere,
        **more,
    )


def run(settings: GatewaySettings, upstreams: Sequence[Upstream]) -> None:
    """Serve until Ctrl-C."""
    import uvicorn  # with Starlette, half a second that no other command has to wait

    from hermes.gateway.app import Gateway

    require_free(settings.host, settings.port)
    log_to_stderr("%(message)s")
    config = uvicorn.Config(
        Gateway(settings, upstreams).app(),
        host=settings.host,
        port=settings.port,
        log_level="warning",
        access_log=False,
        timeout_graceful_shutdown=5,
    )
    say_where(settings)
    with suppress(KeyboardInterrupt):
        uvicorn.Server(config).run()
    notes.print("stopping")


def say_where(settings: GatewaySettings) -> None:
    """Say at which addresses a gateway is found."""
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    at = f"http://{settings.published or f'{host}:{settings.port}'}"
    notes.print(f"Replicate's API is at {at}, OpenAI's at {at}/v1")
    notes.print(f"chat at {at}/; Ctrl-C to stop")
