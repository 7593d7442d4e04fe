"""A stream that breaks off. By then its status is sent, so the error is an event of its own."""

import asyncio
import json

from hermes.gateway.openai_api import Reply, _Chat, _stream
from hermes.gateway.problems import Problem
from hermes.gateway.runs import Run

BROKE = "E1203 EngineFailed: the connection to the server broke; the request can be sent again"


class Ended:
    """Runs, each of which has failed after its first piece."""

    def start(self, inputs):
        run = Run(inputs)
        run.add("Half a sen")
        run.status, run.error, run.ended = "failed", BROKE, run.created
        return run

    def abandon(self, run):
        assert run.ended


def test_an_error_in_mid_stream_is_an_event_and_the_end_is_said():
    async def main():
        reply = Reply(Ended(), [{"prompt": "Hi"}])
        await reply.begun()
        return [text async for text in _stream(reply, _Chat("m"), usage=True)]

    *_, said, error, done = asyncio.run(main())
    assert json.loads(said.removeprefix("data: "))["choices"][0]["delta"] == {"content": "Half a sen"}
    assert json.loads(error.removeprefix("data: ")) == {
        "error": {"message": BROKE, "type": "server_error", "param": None, "code": "E1203"}
    }
    assert done == "data: [DONE]\n\n"


def test_an_error_before_the_first_piece_is_a_status():
    class Failed(Ended):
        def start(self, inputs):
            run = super().start(inputs)
            run.output.clear()
            return run

    async def main():
        try:
            await Reply(Failed(), [{"prompt": "Hi"}]).begun()
        except Problem as problem:
            return problem.status

    assert asyncio.run(main()) == 503
