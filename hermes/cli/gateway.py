"""python -m hermes gateway: Replicate's, OpenAI's and Anthropic's APIs and a page, before servers that answer."""

import inspect
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import fields
from functools import wraps
from pathlib import Path
from typing import Annotated, Any

import typer

from hermes.cli.notes import notes
from hermes.cli.ports import require_free
from hermes.gateway.settings import GatewaySettings
from hermes.gateway.tokens import find_tokens
from hermes.gateway.upstream import Upstream, open_upstream
from hermes.logs import log_to_stderr

FIELDS = {field.name: field for field in fields(GatewaySettings)}
Names = list[str] | None
OPTIONS: dict[str, tuple[Any, Any]] = {  # by the setting: type and option
    "host": (str, typer.Option(help="the address to listen on; another than this machine's needs a token")),
    "port": (int, typer.Option(help="the port to listen on", min=1, max=65535)),
    "published": (
        str | None,
        typer.Option(metavar="HOST:PORT", help="where others reach it, if a container publishes its port"),
    ),
    "public_url": (str | None, typer.Option(metavar="URL", help="where others reach it through a proxy")),
    "forwarded_from": (
        Names,
        typer.Option(metavar="ADDRESS", help="a proxy, or a network of some, whose X-Forwarded-* count; repeatable"),
    ),
    "model": (str, typer.Option(help="owner/name under which clients find the model")),
    "aliases": (Names, typer.Option("--alias", help="one more name of the model, such as gpt-4o; repeatable")),
    "tokens": (
        Path | None,
        typer.Option("--tokens-file", help="one name:token or name:sha256:DIGEST a line; HERMES_GATEWAY_TOKENS_FILE"),
    ),
    "no_auth": (bool, typer.Option("--no-auth", help="serve other machines without a token")),
    "origins": (Names, typer.Option("--origin", help="of a web page that may send requests, by CORS; repeatable")),
    "webhooks": (
        Names,
        typer.Option(metavar="HOST", help="a host, or HOST:PORT, that webhooks may go to; * for any; repeatable"),
    ),
    "max_waiting": (int, typer.Option(help="requests in the queue")),
    "max_wait": (float, typer.Option(help="seconds in the queue")),
    "max_per_token": (int | None, typer.Option(help="predictions in flight for one token; no limit if not given")),
    "max_body": (int, typer.Option(help="bytes of a request")),
    "max_memory": (int, typer.Option(help="bytes of all requests and predictions in flight")),
    "keep": (float, typer.Option(help="seconds that an ended prediction or response can be read")),
    "keep_runs": (int, typer.Option(help="how many ended predictions can be read, and how many responses")),
    "keep_bytes": (int, typer.Option(help="bytes of all ended predictions that can be read, and of all responses")),
    "store": (Path | None, typer.Option(help="the SQLite file that keeps predictions and responses over a restart")),
    "grace": (float, typer.Option(help="seconds for running predictions after SIGTERM")),
}


def gateway_options(*names: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command the options of these settings. It gets the settings as its first argument."""

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        @wraps(command)
        def with_settings(**given: Any) -> None:
            command(settings_of({name: given.pop(name) for name in names}), **given)

        own = list(inspect.signature(command, eval_str=True).parameters.values())[1:]
        options = [_parameter(name) for name in names]
        kept = [each.replace(kind=inspect.Parameter.KEYWORD_ONLY) for each in own]
        vars(with_settings)["__signature__"] = inspect.Signature([*kept, *options])
        with_settings.__annotations__ = {each.name: each.annotation for each in (*kept, *options)}
        return with_settings

    return decorate


def _parameter(name: str) -> inspect.Parameter:
    kind, option = OPTIONS[name]
    default = None if kind is Names or name == "tokens" else FIELDS[name].default
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=Annotated[kind, option])


def settings_of(given: dict[str, Any]) -> GatewaySettings:
    """The settings that the options of a command ask for. Raises InvalidConfiguration, see GatewaySettings."""
    repeated = {name: tuple(value or ()) for name, value in given.items() if OPTIONS[name][0] is Names}
    return GatewaySettings(**{**given, **repeated, "tokens": find_tokens(given.get("tokens"))})


@gateway_options(*OPTIONS)
def gateway(
    settings: GatewaySettings,
    upstream: Annotated[
        list[str], typer.Option(help="http://HOST:PORT of a Cog server, or replicate:OWNER/NAME; repeatable")
    ],
    slots: Annotated[int, typer.Option(help="predictions at once at each upstream", min=1)] = 32,
) -> None:
    """Serve Replicate's, OpenAI's and Anthropic's APIs and a page until Ctrl-C. HERMES_GATEWAY_TOKENS has tokens,
    comma-separated, or HERMES_GATEWAY_TOKENS_FILE names a file of them.
    """
    run(settings, [open_upstream(name, slots) for name in upstream])


def run(settings: GatewaySettings, upstreams: Sequence[Upstream]) -> None:
    """Serve until Ctrl-C."""
    require_free(settings.host, settings.port)
    from hermes.gateway.app import Gateway  # with Starlette, half a second that no other command has to wait
    from hermes.gateway.memory import tune_process
    from hermes.gateway.server import serve

    log_to_stderr("%(message)s")
    served = Gateway(settings, upstreams)
    say_where(settings)
    tune_process()
    with suppress(KeyboardInterrupt):
        serve(served.app(), settings, served.stop)
    notes.print("stopping")


def say_where(settings: GatewaySettings) -> None:
    """Say at which addresses a gateway is found."""
    at = settings.urls[0]
    notes.print(f"Replicate's API is at {at}, OpenAI's at {at}/v1")
    notes.print(f"chat at {at}/; Ctrl-C to stop")
