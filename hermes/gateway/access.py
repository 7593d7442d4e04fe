"""The gate before the routes: who may ask, under which address, with what kind of body.

Three things keep strangers out. Tokens; the Host header, since a stranger's name can be made to lead here (DNS
rebinding); and the Origin header, since a stranger's page can send requests from a user's browser.
"""

import ipaddress
import json
import logging
import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, replace
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from hermes.gateway.bodies import too_large
from hermes.gateway.caller import Caller
from hermes.gateway.encodings import encoding_of
from hermes.gateway.messages_errors import body_of, is_anthropic, status_of
from hermes.gateway.metrics import Metrics
from hermes.gateway.problems import Problem, of_bug
from hermes.gateway.settings import GatewaySettings
from hermes.gateway.tokens import digest_of
from hermes.text import shortened

log = logging.getLogger(__name__)
PROBES = ("/healthz", "/health", "/ping")  # of load balancers; a 503 is no refusal
OPEN = (*PROBES, "/", "/version")  # without a token; so are the page's files, and streams,
OPEN_FOLDERS = ("/page/", "/stream/")  # whose addresses are secrets
REQUEST_ID = re.compile(r"[A-Za-z0-9_-]{1,64}\Z")
KNOWN_PARAM = re.compile(r"[a-z_]{1,40}(?=[.\[]|\Z)")  # the rest may be what a client wrote
PREFIX = re.compile(r"(?:/(?!\.)[\w.~-]+)+\Z", re.ASCII)
HOST = re.compile(r"(?:[\w.-]+|\[[0-9a-fA-F:.]+\])(?::\d{1,5})?\Z", re.ASCII)
MAX_PATH = 60  # characters of a path that is no route, in the log
PRIVATE_NAMES = (".localhost", ".local", ".internal", ".home.arpa")  # no public DNS has them


@dataclass(frozen=True)
class BaseUrl:
    """Where a client found the gateway."""

    scheme: str
    host: str  # with its port
    prefix: str = ""  # of all paths, such as /hermes

    @property
    def origin(self) -> str:
        """As browsers write the origin of a page."""
        return _without_port(f"{self.scheme}://{self.host}".lower())


class Gate:
    """An ASGI middleware."""

    def __init__(self, app: ASGIApp, settings: GatewaySettings, metrics: Metrics):
        self._app, self._settings, self._metrics = app, settings, metrics
        parts = urlsplit(settings.public_url or "")
        self._public = BaseUrl(parts.scheme, parts.netloc, parts.path) if settings.public_url else None
        self._proxies = [ipaddress.ip_network(each) for each in settings.forwarded_from]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request that may not pass, and pass on the others with their caller and base URL in the state."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        given_id = headers.get("x-request-id", "")
        request_id = given_id if REQUEST_ID.match(given_id) else secrets.token_hex(8)
        address = self._address(scope, headers)
        shown = self._public or address
        base = f"{shown.scheme}://{shown.host}{shown.prefix}"
        scope["path"] = path = _path(scope["path"], shown.prefix)
        scope.setdefault("state", {}).update(caller=Caller(request_id=request_id), base=base)

        begun = False

        async def answer(message: Message) -> None:
            nonlocal begun
            if message["type"] == "http.response.start":
                begun = True
                sent = MutableHeaders(scope=message)
                sent["x-request-id"] = request_id
                if is_anthropic(path):
                    sent["request-id"] = request_id
                self._count(scope, message["status"])
            await send(message)

        app = self._app
        try:
            self._check_host(_host(scope, headers))
            self._check_host(address.host)
            self._check_origin(path, headers, address)
            scope["state"]["caller"] = Caller(self._token(path, headers), request_id)
            self._check_body(scope["method"], headers)
            if path == "":
                app = RedirectResponse(f"{base}/")
        except Problem as problem:
            app = response_of(problem, scope)
        try:
            await app(scope, receive, answer)
        except Exception as bug:
            fault = of_bug(f"request {request_id}", bug)
            if not begun:  # else the server closes the connection
                await response_of(fault, scope)(scope, receive, answer)

    def _address(self, scope: Scope, headers: Headers) -> BaseUrl:
        found = {"scheme": scope["scheme"], "host": _host(scope, headers), "prefix": ""}
        if self._is_proxy((scope.get("client") or ("",))[0]):
            # what was sent before the proxy added its own is the client's
            said = {name: headers.getlist(f"x-forwarded-{name}")[-1:] for name in ("proto", "host", "prefix")}
            last = {name: values[0].rpartition(",")[2].strip() for name, values in said.items() if values}
            if last.get("proto") in ("http", "https"):
                found["scheme"] = last["proto"]
            if HOST.match(last.get("host", "")):
                found["host"] = last["host"]
            if PREFIX.match(prefix := last.get("prefix", "").rstrip("/")):
                found["prefix"] = prefix
        return BaseUrl(**found)

    def _is_proxy(self, client: str) -> bool:
        try:
            address = ipaddress.ip_address(client)
        except ValueError:  # a Unix socket
            return False
        return any(address in network for network in self._proxies)

    def _check_host(self, host: str) -> None:
        """Without tokens, a name that a stranger's DNS can have must not lead here."""
        if not HOST.match(host):
            raise Problem(400, f"the Host header is {host[:MAX_PATH]!r}; it has to be HOST or HOST:PORT")
        is_public = self._public is not None and host.lower() == self._public.host.lower()
        host = re.sub(r":\d*\Z", "", host)
        if not (self._settings.tokens or is_public) and _may_be_strangers(host):
            advice = "use an IP address or localhost, or start the gateway with --public-url or tokens"
            raise Problem(403, f"the host is {host!r}; {advice}")

    def _check_origin(self, path: str, headers: Headers, address: BaseUrl) -> None:
        """The pages of others must not ask from a user's browser."""
        origin = headers.get("origin")
        if origin is None:  # of a page: images, scripts and links have none, and plain HTTP has no Sec-Fetch-Site
            own = headers.get("sec-fetch-site", "none") in ("none", "same-origin")
            navigates = path == "/" and headers.get("sec-fetch-mode") == "navigate"
            listed = "*" in self._settings.origins
        else:
            # the scheme is the client's to know: TLS may end before the gateway
            here = replace(address, scheme=origin.partition("://")[0]).origin
            own = _without_port(origin.lower()) in (here, self._public.origin if self._public else here)
            navigates = False
            listed = origin in self._settings.origins or "*" in self._settings.origins
        if not (own or navigates or listed):
            raise Problem(
                403, f"requests from pages of {origin or 'other sites'} are refused; allow them with --origin"
            )

    def _token(self, path: str, headers: Headers) -> str:
        """Returns the name of the token. Raises Problem if one is needed and it is none of the gateway's."""
        names: Mapping[bytes, str] = self._settings.token_names
        tokens = _tokens(headers)
        owners = {names.get(digest_of(token.encode("latin-1")), "") for token in tokens}
        if len(owners) == 1 and (owner := owners.pop()):
            return owner
        if names and path not in OPEN and not path.startswith(OPEN_FOLDERS):
            one = "the token is none of the gateway's" if tokens else "there is no token"
            wrong = "Authorization and x-api-key have no token of one name" if len(tokens) > 1 else one
            raise Problem(
                401, f"{wrong}; send one as Authorization: Bearer TOKEN, or as x-api-key", code="invalid_api_key"
            )
        return ""

    def _check_body(self, method: str, headers: Headers) -> None:
        """A page can send other kinds of bodies than JSON to another site without asking that site before."""
        length = headers.get("content-length", "0")
        if method != "POST" or (length == "0" and "transfer-encoding" not in headers):
            return
        if headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
            kind = headers.get("content-type") or "missing"
            raise Problem(415, f"the Content-Type is {kind[:80]}; send JSON, with Content-Type: application/json")
        encoding_of(headers)  # refuses what is not read
        if length.isascii() and length.isdecimal() and (len(length) > 15 or int(length) > self._settings.max_body):
            raise too_large(self._settings.max_body)

    def _count(self, scope: Scope, status: int) -> None:
        """Count a response; a refusal is a line in the log, too, without what the client sent."""
        caller: Caller = scope["state"]["caller"]
        route = getattr(scope.get("route"), "path", "")
        self._metrics.count_response(caller.token, route, status)
        if status >= 400 and route not in PROBES:
            problem = scope["state"].get("problem")
            param = KNOWN_PARAM.match(getattr(problem, "param", None) or "")
            line = {
                "request_id": caller.request_id,
                "token": caller.token,
                "method": scope["method"],
                "route": route
                or shortened("/".join(scope["path"].split("/", 2)[:2]), MAX_PATH),  # not the rest: a stream's secret
                "client": (scope.get("client") or ("",))[0],
                "status": status,
                "code": getattr(problem, "code", None),
                "param": param[0] if param else None,
            }
            log.info("gateway: refused: %s", json.dumps(line))


def response_of(problem: Problem, scope: Scope) -> Response:
    """Returns the response that tells a problem, which the log then has, too."""
    scope["state"]["problem"] = problem
    if is_anthropic(scope["path"]):
        body = body_of(problem, scope["state"]["caller"].request_id)
        return JSONResponse(body, status_of(problem), problem.headers())
    return JSONResponse(problem.body(), problem.status, problem.headers(), media_type="application/problem+json")


def _host(scope: Scope, headers: Headers) -> str:
    """Returns the Host header. Load balancers that speak HTTP/1.0 send none: then it is the address they found."""
    if "host" in headers or scope["http_version"] != "1.0" or not scope.get("server"):
        return headers.get("host", "")
    host, port = scope["server"]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _path(path: str, prefix: str) -> str:
    """Returns the path of a route; clients add /v1 once more, or not at all. Nothing is left of the prefix alone."""
    path = re.sub("/{2,}", "/", path)
    if path != "/" and prefix != path[:-1]:
        path = path.removesuffix("/")
    if prefix and (path == prefix or path.startswith(f"{prefix}/")):
        path = path.removeprefix(prefix)
    while path.startswith("/v1/"):
        path = path.removeprefix("/v1")
    return path


def _may_be_strangers(host: str) -> bool:
    """Whether a stranger's DNS can have this name. It cannot have an address, or a name without a dot."""
    try:
        ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        name = host.lower().removesuffix(".")
        return not name or ("." in name and not name.endswith(PRIVATE_NAMES))
    return False


def _tokens(headers: Headers) -> list[str]:
    """Returns the tokens of a request: Anthropic's clients have a header of their own for one."""
    scheme, _, token = headers.get("authorization", "").partition(" ")
    bearer = token if scheme.lower() in ("bearer", "token") else ""
    return [each.strip() for each in (bearer, headers.get("x-api-key", "")) if each.strip()]


def _without_port(origin: str) -> str:
    """Returns an origin without the port that its scheme has anyway."""
    return re.sub(r"(?<=\Ahttp:)(//.*):80\Z|(?<=\Ahttps:)(//.*):443\Z", lambda found: found[1] or found[2], origin)
