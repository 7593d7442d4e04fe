"""What is known of the length of a prompt before it is encoded is true, whatever the tokenizer and the text."""

from hypothesis import given
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers

from hermes.chat.chatml import ChatML
from hermes.chat.messages import Message
from hermes.chat.template import fill, filled_size
from tests.support.fakes import FakeTokenizer, byte_tokenizer
from tests.support.hostile import CONTROL, TAGS, clean, examples, quiet, words

pytestmark = quiet


def trained():
    """A byte-level tokenizer with long tokens, in the shape of Llama 3's."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(pattern=" ", behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    tokenizer.train_from_iterator(["aaaaaaaaaaaaaaaa {prompt} 東東東東 éééé \n\n\n\n"] * 9, trainer)
    tokenizer.add_tokens([AddedToken(text, special=True, normalized=False) for text in CONTROL[:3]])
    tokenizer.add_tokens([AddedToken("<tool_call>", normalized=False), AddedToken("東京" * 9, normalized=False)])
    return FakeTokenizer(tokenizer, CONTROL[2])


TRAINED = trained()
CHATMLS = [ChatML(TRAINED), ChatML(byte_tokenizer()), ChatML(byte_tokenizer(added=TAGS[:2]))]
runs = st.builds(lambda text, times: text * times, st.sampled_from(["a", "東", "東京", "é", "\n"]), st.integers(1, 99))
long_texts = st.lists(runs | words | st.text(max_size=9), max_size=6).map(
    lambda parts: "".join(parts).encode(errors="ignore").decode()
)


@examples(100)
@given(st.sampled_from(CHATMLS), st.sampled_from(["system", "user", "assistant", "tool"]), long_texts)
def test_a_turn_has_at_least_the_tokens_that_its_size_tells(chatml, role, text):
    message = Message(role, text)
    assert chatml.fewest_tokens_of_turn(message) <= len(chatml.encode_turn(message))


@examples(100)
@given(st.sampled_from(CHATMLS), long_texts)
def test_a_raw_prompt_has_at_least_the_tokens_that_its_size_tells(chatml, text):
    assert chatml.fewest_tokens(len(text.encode())) <= len(chatml.encode_raw(text))


@examples(100)
@given(st.lists(st.sampled_from(["{prompt}", "{system_prompt}", "{", "}", "é", "{{prompt}}"])), clean, clean)
def test_the_size_of_a_template_that_is_filled_is_known_before(template, prompt, system_prompt):
    parts = "".join(template), prompt, system_prompt
    assert filled_size(*parts) == len(fill(*parts).encode())


@examples(100)
@given(long_texts)
def test_text_comes_back_from_tokens_of_many_bytes(text):
    chatml = CHATMLS[0]
    ids = chatml.encode_turn(Message("user", text))
    assert TRAINED.shown(ids) == f"<|im_start|>user\n{text}<|im_end|>\n"
    assert (ids.count(chatml.start_id), ids.count(chatml.end_id)) == (1, 1)
