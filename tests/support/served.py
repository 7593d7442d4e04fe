"""The package's own service as an upstream, in the test's process: all of a prediction but the engine is real."""

from pydantic_core import from_json

from hermes.chat.chatml import ChatML
from hermes.chat.inputs import Inputs
from hermes.devserver import PROJECT, PredictorSource
from hermes.errors import HermesError
from hermes.serving import ChatService
from hermes.settings import Settings
from tests.support.asgi_gateway import FakeUpstream
from tests.support.fakes import FakeEngine, byte_tokenizer

SOURCE = PredictorSource(PROJECT / "predict.py")


class Served(FakeUpstream):
    """A model of which only the engine is scripted."""

    def __init__(self, *chunks, context_tokens=500):
        super().__init__(document=SOURCE.openapi())
        self.engine = FakeEngine(list(chunks), context_tokens=context_tokens)
        self.chatml = ChatML(byte_tokenizer())
        self.service = ChatService(self.engine, self.chatml, Settings(profile="local"))
        self.inputs = []  # of each prediction

    async def run(self, run_id, inputs):
        self.inputs.append(from_json(inputs))
        defaults = {name: schema.get("default") for name, schema in SOURCE.inputs().items()}
        whole: Inputs = {**dict.fromkeys(Inputs.__annotations__), **defaults, **self.inputs[-1]}
        metrics, output, error = {}, [], None
        try:
            async for piece in self.service.respond(metrics.__setitem__, **whole):
                output.append(piece)
                yield "output", {"chunk": piece}
        except HermesError as failed:
            error = f"{type(failed).__name__}: {failed}"
        status = {"status": "failed", "error": error} if error else {"status": "succeeded"}
        yield "completed", {"output": output, "metrics": metrics, **status}
