"""The models to ask: one behind a Cog server, one on Replicate (https://replicate.com/docs/reference/http)."""

import os
import time
from collections.abc import Iterator, Mapping
from contextlib import closing, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import httpx

from hermes.client.cog import given, stream_prediction
from hermes.client.errors import PredictionFailed, PredictionRefused
from hermes.client.response import OnText, Response, read_response, read_text
from hermes.environment import header_token, proxy_for, tls
from hermes.errors import InvalidConfiguration, find_error
from hermes.text import without_credentials

if TYPE_CHECKING:
    from replicate.client import Client
    from replicate.prediction import Prediction

BOOT_SECONDS = 1800.0  # a cold 70B sends nothing for minutes; replicate's own timeout is 30 s
SETTLE_SECONDS = 30.0  # from the end of the stream to the end of the prediction

# What Replicate's client raises on unexpected data, beside its own errors.
UNEXPECTED = (
    *(httpx.RequestError, httpx.InvalidURL),
    *(ValueError, TypeError, LookupError, AttributeError, RecursionError),
)


@dataclass(frozen=True)
class CogServer:
    """A Cog server: `make serve`, `python -m hermes serve`, or the container that `cog build` makes."""

    url: str = "http://127.0.0.1:5000"

    def __repr__(self) -> str:
        return f"CogServer({without_credentials(self.url)!r})"

    def ask(self, inputs: Mapping[str, Any], on_text: OnText | None = None) -> Response:
        """See Model.ask."""
        pieces: list[str] = []
        with closing(stream_prediction(self.url, inputs)) as events:  # type: ignore[type-var]
            for name, data in events:
                if name == "output":
                    pieces.append(read_text("the server's output", data.get("chunk")))
                    if on_text:
                        on_text(pieces[-1])
                elif name == "completed":
                    return read_response(inputs, "".join(pieces), data)
                elif name == "error":
                    raise PredictionFailed(str(data.get("error")))
        raise PredictionFailed("the stream ended before the prediction was complete")


class ReplicateModel:
    """A model on Replicate, asked through the official client."""

    def __init__(self, ref: str, client: "Client | None" = None):
        """Name the model.

        Args:
            ref: "owner/name", which is its latest version, or "owner/name:version".
            client: None makes one that takes its token from REPLICATE_API_TOKEN, and a proxy from the environment.

        Raises:
            ValueError: `ref` has another form.
            InvalidConfiguration: the token or the proxy of the environment cannot be used.
        """
        from replicate.identifier import ModelVersionIdentifier

        self._owner, self._name, self._version = ModelVersionIdentifier.parse(ref)
        self._client = client or _replicate_client()

    def ask(self, inputs: Mapping[str, Any], on_text: OnText | None = None) -> Response:
        """See Model.ask. Its text is the final prediction's: the stream cannot carry every character."""
        prediction = self._create(inputs)
        try:
            for piece in self._pieces(prediction):
                if on_text:
                    on_text(piece)
            self._settle(prediction)
        except BaseException:
            with suppress(Exception):  # the first error is the one to report
                prediction.cancel()
            raise
        text = _joined(prediction.output) if prediction.status == "succeeded" else ""
        record = {"status": prediction.status, "error": prediction.error, "metrics": prediction.metrics}
        return read_response(inputs, text, record)

    def _create(self, inputs: Mapping[str, Any]) -> "Prediction":
        from replicate.exceptions import ReplicateError

        try:
            self._version = self._version or self._latest_version()
            return self._client.predictions.create(self._version, given(inputs), stream=True)
        except ReplicateError as error:
            raise PredictionRefused(error.status or 0, str(error.detail or error.title or "no reason given")) from error
        except httpx.TransportError as error:
            raise PredictionFailed(f"the connection to Replicate broke: {error}") from error
        except UNEXPECTED as error:
            raise PredictionFailed(f"the prediction cannot be created: {type(error).__name__}: {error}") from error

    def _latest_version(self) -> str:
        """The id of the newest version: Replicate runs only its official models by name."""
        version = self._client.models.get(self._owner, self._name).latest_version
        if version is None:
            raise PredictionRefused(404, f"{self._owner}/{self._name} has no version; push one with cog push")
        return version.id

    def _pieces(self, prediction: "Prediction") -> Iterator[str]:
        from replicate.exceptions import ReplicateError

        try:
            for event in prediction.stream():
                if event.event.value == "done":
                    return
                if event.event.value == "output" and event.data:
                    yield str(event.data)  # the client makes a file of any text that begins with "https:" or "data:"
        except RuntimeError as error:  # the client's form of an `error` event; the prediction knows more
            self._settle(prediction)
            text = prediction.error or str(error)
            raise PredictionFailed(find_error(text) or text) from error
        except (ReplicateError, *UNEXPECTED) as error:
            raise PredictionFailed(f"the stream broke: {type(error).__name__}: {error}") from error
        raise PredictionFailed("the stream ended before the prediction was complete")

    def _settle(self, prediction: "Prediction") -> None:
        """Load the ended prediction. It may end a moment after its stream."""
        from replicate.exceptions import ReplicateError

        deadline = time.monotonic() + SETTLE_SECONDS
        try:
            prediction.reload()
            while prediction.status in ("starting", "processing"):
                if time.monotonic() > deadline:
                    raise PredictionFailed(f"the prediction is {prediction.status} still, after the end of its stream")
                time.sleep(self._client.poll_interval)
                prediction.reload()
        except (ReplicateError, *UNEXPECTED) as error:
            raise PredictionFailed(f"the prediction cannot be loaded: {type(error).__name__}: {error}") from error


def _replicate_client() -> "Client":
    """Replicate's own client uses no proxy, and sends a token with its newline, which fails."""
    from replicate.client import Client

    token = header_token(text := os.environ.get("REPLICATE_API_TOKEN"), "REPLICATE_API_TOKEN")
    if text and not token:
        raise InvalidConfiguration("REPLICATE_API_TOKEN", "has blanks and no token; set it, or unset it")
    proxy = proxy_for(os.environ.get("REPLICATE_BASE_URL") or "https://api.replicate.com")
    transport = httpx.HTTPTransport(verify=tls(), proxy=proxy.url if proxy else None)
    return Client(api_token=token, transport=transport, timeout=httpx.Timeout(30, read=BOOT_SECONDS))


def _joined(output: Any) -> str:
    """The text of an ended prediction: Replicate keeps a list of the pieces."""
    pieces = output if isinstance(output, list) else [output or ""]
    return "".join(read_text("the prediction's output", piece) for piece in pieces)
