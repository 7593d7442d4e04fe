"""A model in 8 bits: made by the command, packed, locked, fetched, and asked. transformers runs it, as vLLM has no
kernel for it on a CPU: it computes with the de-quantised weights, which is what the A100's Marlin kernel does, too."""

import tarfile

import pytest
import torch
from huggingface_hub.utils import close_session
from transformers import AutoModelForCausalLM, AutoTokenizer, CompressedTensorsConfig

from hermes.cli import main
from tests.support.hostile import TIMES
from tests.support.hub_server import HubServer

PROMPTS = [
    "What is the capital of France?",
    "What is the capital of Japan?",
    "Name three colours.",
    "Count from one to ten.",
    "What is 2 + 2?",
    "Write a sentence about the sea.",
    "What do bees make?",
    "Who wrote Hamlet?",
    "How many days has a week?",
    "What is water made of?",
    "Name a large animal.",
    "What is the opposite of hot?",
    "Translate 'thank you' into French.",
    "Which planet do we live on?",
    "What does a baker sell?",
    "Write a line of Python that prints hello.",
    "Give me a word that rhymes with cat.",
    "In which season does it snow?",
    "What is the boiling point of water?",
    "Say good morning.",
]
TOKENS = 12  # of each answer

pytestmark = pytest.mark.filterwarnings("ignore")  # transformers and compressed-tensors warn of each other


@pytest.fixture(scope="module")
def fetched(small_model, tmp_path_factory):
    """The folder of SmolLM2 in 8 bits after its way: quantise, pack, lock, fetch, verify."""
    home = tmp_path_factory.mktemp("fp8")
    with pytest.MonkeyPatch.context() as patched, HubServer() as server:
        for name, value in {"WEIGHTS_DIR": home / "weights", "WEIGHTS_LOCK": home / "weights.lock"}.items():
            patched.setenv(f"HERMES_{name}", str(value))
        archive = f"{server.url}/fp8.tar"
        for command in (["quantize", small_model, "-o", home / "fp8"], ["pack", home / "fp8", "-o", home / "fp8.tar"]):
            assert main(["weights", *map(str, command)]) == 0
        server.add_file("/fp8.tar", (home / "fp8.tar").read_bytes())
        for command in ("lock", "fetch", "verify"):
            assert main(["weights", command, archive]) == 0
        close_session()
    [config] = (home / "weights").glob("*/config.json")
    return config.parent


@pytest.fixture(scope="module")
def models(small_model, fetched):
    """SmolLM2 as it is, and in 8 bits. In float32, for few CPUs multiply in bfloat16."""
    torch.set_num_threads(1)  # two would wait for each other in spins, beside the engines of other tests
    dequantising = CompressedTensorsConfig(dequantize=True)
    return (
        AutoModelForCausalLM.from_pretrained(small_model, dtype=torch.float32),
        AutoModelForCausalLM.from_pretrained(fetched, dtype=torch.float32, quantization_config=dequantising),
    )


@pytest.fixture(scope="module")
def prompts(small_model):
    tokenizer = AutoTokenizer.from_pretrained(small_model, padding_side="left")
    turns = [[{"role": "user", "content": prompt}] for prompt in PROMPTS[: 10 * TIMES]]
    return tokenizer.apply_chat_template(
        turns, add_generation_prompt=True, padding=True, return_tensors="pt", return_dict=True
    )


def test_the_archive_has_half_the_bytes(small_model, fetched):
    """The layers' 106 M weights in 8 bits; the embeddings, 28 M, stay in 16, which they are not in a large model."""
    before, after = ((folder / "model.safetensors").stat().st_size for folder in (small_model, fetched))
    linear = 30 * (2 * 576 * 576 + 2 * 192 * 576 + 3 * 1536 * 576)
    assert after == pytest.approx(before - linear, rel=0.01)
    with tarfile.open(fetched.parent.parent / "fp8.tar") as tar:
        assert "config.json" in tar.getnames()


def test_it_answers_almost_as_the_original(models, prompts):
    """Greedy, 10 prompts, or all 20 in make test-long.

    KL is of its next-token probabilities from the original's, along the original's answers.
    """
    original, fp8 = (model.generate(**prompts, max_new_tokens=TOKENS, do_sample=False) for model in models)
    start = prompts["input_ids"].shape[1]
    ended = original[:, start:] == models[0].config.eos_token_id
    real = ended.cumsum(1) - ended.long() == 0  # to the end of the turn; then comes padding
    mask = torch.cat([prompts["attention_mask"], real.long()], dim=1)
    with torch.no_grad():
        ours, theirs = (
            model(input_ids=original, attention_mask=mask).logits[:, start - 1 : -1].float().log_softmax(-1)[real]
            for model in (models[1], models[0])
        )
    kl = (theirs.exp() * (theirs - ours)).sum(-1).mean().item()
    same_token = (theirs.argmax(-1) == ours.argmax(-1)).float().mean().item()
    same_answer = sum(torch.equal(one, two) for one, two in zip(original[:, start:], fp8[:, start:], strict=True))
    said = f"{len(ours)} tokens: mean KL {kl:.4f}, the same likeliest {same_token:.0%}, the same answers {same_answer}"
    print(said)
    assert kl < 0.05, said
    assert same_token > 0.9, said
    assert same_answer >= len(prompts["input_ids"]) // 4, said
