"""How huggingface_hub connects, and what its errors mean. It uses httpx2."""

import os
from collections.abc import Callable
from functools import cache
from json import JSONDecodeError
from ssl import SSLContext
from typing import TypeVar

from hermes.environment import can_be_asked, tls
from hermes.errors import WeightsError
from hermes.text import redacted
from hermes.weights.causes import PASSING, fault_of, proxy
from hermes.weights.remote import Interrupted, PermanentFault
from hermes.weights.source import HubSource
from hermes.weights.waits import retry_after

T = TypeVar("T")
HUBS = {b"huggingface.co", b"hub-ci.huggingface.co", b"hf.co"}
STEPS = {401: "check HF_TOKEN", 403: "check HF_TOKEN", 407: "check the proxy", 511: "log in to the network"}


def endpoint() -> str:
    """The URL of the hub or of its mirror, without a slash at its end."""
    from huggingface_hub import constants

    return (os.environ.get("HF_ENDPOINT", "").strip() or constants.ENDPOINT).rstrip("/")


@cache
def set_client() -> None:
    """Have huggingface_hub connect as we do: through the same proxies, with the same certificates."""
    from httpx2 import URL, BaseTransport, Client, HTTPTransport, InvalidURL, Request, Response
    from huggingface_hub import set_client_factory
    from huggingface_hub.utils._http import hf_request_event_hook

    class Transport(BaseTransport):
        """Chooses the proxy and the certificates for each request. A mirror's token does not go to the hub itself."""

        def __init__(self) -> None:
            self._transports: dict[tuple[str | None, SSLContext], HTTPTransport] = {}

        def handle_request(self, request: Request) -> Response:
            url, own = request.url, URL(endpoint())
            if not can_be_asked(url):  # type: ignore[arg-type] # httpx's has the same names
                raise InvalidURL(f"{url.raw_host.decode()}:{url.port}")
            if url.netloc in HUBS - {own.netloc}:  # huggingface_hub follows a redirect to it with the token
                request.headers.pop("Authorization", None)
            found = proxy(str(url))
            key = (found.url if found else None, tls())
            if key not in self._transports:
                self._transports[key] = HTTPTransport(proxy=key[0], verify=key[1])
            return self._transports[key].handle_request(request)

        def close(self) -> None:
            for transport in self._transports.values():
                transport.close()

    hooks = {"request": [hf_request_event_hook]}
    set_client_factory(lambda: Client(event_hooks=hooks, follow_redirects=True, timeout=None, transport=Transport()))


def asking_hub(source: HubSource, ask: Callable[[], T]) -> T:
    """Ask the hub and convert the errors of huggingface_hub. Those may hold a token, so ours do not chain them."""
    from httpx2 import InvalidURL, RequestError, UnsupportedProtocol
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        OfflineModeIsEnabled,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    try:
        return ask()
    except GatedRepoError:
        said = "the repository is gated"
        raise WeightsError(source, said, "accept its licence on the hub, and set HF_TOKEN to your token") from None
    except RevisionNotFoundError:
        said = f"it has no revision {source.revision!r}"
        raise WeightsError(source, said, "name another revision after the @") from None
    except RepositoryNotFoundError:
        said = "the repository does not exist or is private"
        raise WeightsError(source, said, "check its name, and set HF_TOKEN to a token that may read it") from None
    except OfflineModeIsEnabled:
        raise WeightsError(source, "HF_HUB_OFFLINE is set, and the model is not here", "unset HF_HUB_OFFLINE") from None
    except HfHubHTTPError as error:
        status = error.response.status_code
        if status in PASSING:
            raise Interrupted(f"HTTP {status}: {error}", retry_after(error.response.headers, status)) from None
        step = STEPS.get(status, "check HF_ENDPOINT" if os.environ.get("HF_ENDPOINT") else "check the source")
        raise WeightsError(source, f"the hub refuses (HTTP {status}: {redacted(str(error))})", step) from None
    except (JSONDecodeError, UnicodeDecodeError, LookupError, TypeError, AttributeError, RecursionError) as error:
        said = f"what {endpoint()} sends is not a response of the hub's API"
        raise PermanentFault(said, "check HF_ENDPOINT, and whether a proxy wants a log-in") from error
    except (InvalidURL, UnsupportedProtocol, UnicodeError) as error:
        raise WeightsError(source, f"HF_ENDPOINT is not a URL ({error})", "correct it, or unset it") from None
    except (RequestError, ConnectionError) as error:
        raise fault_of(source, error, endpoint()) from None
    except ValueError as error:
        raise WeightsError(
            source, redacted(str(error)), "name another source, or choose its files with ?include=PATTERN"
        ) from None
