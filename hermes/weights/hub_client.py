"""How huggingface_hub connects, and what its errors mean. It uses httpx2."""

import os
from collections.abc import Callable
from functools import cache
from json import JSONDecodeError

from hermes.errors import WeightsError
from hermes.text import redacted
from hermes.weights.causes import authorities, fault_of, proxy, trusting
from hermes.weights.http import PASSING
from hermes.weights.remote import Interrupted, Lasting, Listing
from hermes.weights.source import HubSource
from hermes.weights.waits import retry_after


def endpoint() -> str:
    """The URL of the hub or of its mirror, without a slash at its end."""
    from huggingface_hub import constants

    return (os.environ.get("HF_ENDPOINT", "").strip() or constants.ENDPOINT).rstrip("/")


@cache
def set_client() -> None:
    """Have huggingface_hub connect as we do: through the same proxies, with the same certificates."""
    from httpx2 import BaseTransport, Client, HTTPTransport, Request, Response
    from huggingface_hub import set_client_factory
    from huggingface_hub.utils import _http

    class Transport(BaseTransport):
        """Chooses the proxy and the certificates for each request. A mirror's token does not go to the hub itself."""

        def __init__(self) -> None:
            self._transports: dict[tuple[str | None, str | None], HTTPTransport] = {}

        def handle_request(self, request: Request) -> Response:
            origin, own = _http._url_origin(str(request.url)), _http._url_origin(endpoint())
            if origin in _http._HUB_ORIGINS - {own}:  # huggingface_hub follows a redirect to it with the token
                request.headers.pop("Authorization", None)
            found, path = proxy(str(request.url)), authorities()
            key = (found.url if found else None, path)
            if key not in self._transports:
                self._transports[key] = HTTPTransport(verify=trusting(path), proxy=key[0])
            return self._transports[key].handle_request(request)

        def close(self) -> None:
            for transport in self._transports.values():
                transport.close()

    hooks = {"request": [_http.hf_request_event_hook]}
    set_client_factory(lambda: Client(event_hooks=hooks, follow_redirects=True, timeout=None, transport=Transport()))


def asking_hub(source: HubSource, ask: Callable[[], Listing]) -> Listing:
    """Ask the hub and convert the errors of huggingface_hub. Those may hold a token, so ours do not chain them."""
    from httpx2 import InvalidURL, RequestError, UnsupportedProtocol, codes
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
        step = "check the proxy" if status == codes.PROXY_AUTHENTICATION_REQUIRED else "check HF_TOKEN"
        raise WeightsError(source, f"the hub refuses (HTTP {status}: {redacted(str(error))})", step) from None
    except (InvalidURL, UnsupportedProtocol) as error:
        raise WeightsError(source, f"HF_ENDPOINT is not a URL ({error})", "correct it, or unset it") from None
    except (RequestError, ConnectionError) as error:
        raise fault_of(source, error, endpoint()) from None
    except (JSONDecodeError, LookupError, TypeError, AttributeError) as error:
        said = f"the response is not one of the hub ({endpoint()})"
        raise Lasting(said, "check HF_ENDPOINT, and whether a proxy wants a log-in") from error
    except ValueError as error:
        raise WeightsError(
            source, redacted(str(error)), "name another source, or choose its files with ?include=PATTERN"
        ) from None
