"""vLLM's AsyncLLM as far as Engine uses it. What the engine core gives, a test puts into the collectors."""

from types import SimpleNamespace


class ScriptedLLM:
    """It keeps the RequestOutputCollector of each request, which is vLLM's own, and the ids that were aborted."""

    errored = False
    engine_core = SimpleNamespace(resources=SimpleNamespace(engine_manager=None))
    model_config = SimpleNamespace(max_model_len=200_000)

    def __init__(self):
        self.collectors = {}
        self.aborted = []

    def get_num_unfinished_requests(self):
        return 0

    def shutdown(self, timeout):
        """Nothing runs."""

    async def abort(self, request_id):
        self.aborted.append(request_id)

    async def add_request(self, request_id, prompt, params):
        from vllm.v1.engine.output_processor import RequestOutputCollector

        collector = self.collectors[request_id] = RequestOutputCollector(params.output_kind, request_id)
        return collector


def given(text, *, end=None):
    """What vLLM's frontend makes of one token, as far as Engine reads it."""
    token = SimpleNamespace(text=text, token_ids=[7], finish_reason=end)
    metrics = SimpleNamespace(num_preemptions=0)
    return SimpleNamespace(outputs=[token], metrics=metrics, finished=end is not None)
