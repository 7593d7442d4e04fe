"""Whatever body Anthropic's clients, or vLLM's, send, it becomes inputs of predict.py or a problem."""

from hypothesis import given
from hypothesis import strategies as st

from hermes.gateway.messages_requests import CountTokensRequest, MessagesRequest
from hermes.gateway.tokens_api import DetokenizeRequest, TokenizeRequest
from tests.fuzz.test_fuzz_gateway import common, inputs_of, message, tools, written
from tests.support.hostile import anything, examples, json_texts, mixed, quiet, sometimes

pytestmark = quiet

KINDS = ["text", "tool_use", "tool_result", "thinking", "document", "search_result", "server_tool_use", "image"]
block = st.fixed_dictionaries(
    {"type": sometimes(st.sampled_from(KINDS))},
    optional={
        **dict.fromkeys(["name", "input", "source", "title", "citations", "is_error"], anything),
        **dict.fromkeys(["id", "tool_use_id"], sometimes(st.sampled_from(["1", "2"]))),
        "text": sometimes(mixed),
        "content": sometimes(mixed) | st.lists(st.fixed_dictionaries({"type": st.just("text"), "text": mixed})),
    },
)
turn = st.fixed_dictionaries(
    {
        "role": sometimes(st.sampled_from(["user", "assistant", "system"])),
        "content": sometimes(mixed | st.lists(sometimes(block), max_size=3)),
    }
)
anthropics = st.fixed_dictionaries(
    {"max_tokens": sometimes(st.just(9)), "messages": sometimes(st.lists(sometimes(turn), max_size=4))},
    optional={
        **common,
        **dict.fromkeys(["tool_choice", "output_config", "context_management", "thinking", "stop_sequences"], anything),
        "system": sometimes(mixed | st.lists(sometimes(block), max_size=2)),
        "tools": tools,
    },
)
texts = st.fixed_dictionaries(
    {},
    optional={
        **dict.fromkeys(
            ["add_special_tokens", "add_generation_prompt", "continue_final_message"], sometimes(st.booleans())
        ),
        "prompt": sometimes(mixed),
        "messages": sometimes(st.lists(sometimes(message), max_size=3)),
        "tools": tools,
        "tokens": sometimes(st.lists(anything | st.integers(), max_size=3)),
    },
)


@examples(200)
@given(anthropics)
def test_any_message_is_inputs_or_a_problem(body):
    inputs_of(MessagesRequest, written(body))
    inputs_of(CountTokensRequest, written(body))


@examples(100)
@given(texts)
def test_any_text_to_be_tokens_is_inputs_or_a_problem(body):
    inputs_of(TokenizeRequest, written(body))
    inputs_of(DetokenizeRequest, written(body))


@examples(50)
@given(json_texts)
def test_any_json_is_a_request_or_a_problem(text):
    for kind in (MessagesRequest, TokenizeRequest, DetokenizeRequest):
        inputs_of(kind, text.encode(errors="surrogatepass"))
