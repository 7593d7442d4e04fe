"""A model folder with the real vocabulary: Meta's of Llama 3, with the additions of Hermes 2 Theta.

Meta's part comes from a package on the index (requirements/llama3.txt). The ids and names around it are facts of
NousResearch/Hermes-2-Theta-Llama-3-70B as far as they are known: 128,256 ids, of which the last 256 are added tokens,
two ends in generation_config.json, two named chat templates. The ids of the tags are made up.

The weights draw a text. Attention and MLP add nothing, so the next token depends on the current one alone. Those in
CHAINS have one successor, a few have several (STARTS), and after any other token a text ends soon, by chance.
"""

import atexit
import json
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from functools import cache
from itertools import pairwise
from pathlib import Path

import pytest
from filelock import FileLock

from hermes.devserver import PROJECT
from hermes.weights.folder import appearing_whole

FOLDER = PROJECT / "weights" / "llama-3-vocabulary"  # git-ignored
REQUIREMENT = PROJECT / "requirements" / "llama3.txt"
VOCABULARY = "llama_models/llama3/tokenizer.model"

_ADDED = range(128000, 128256)
BEGIN, END_OF_TEXT, IM_START, IM_END, EOT = 128000, 128001, 128002, 128003, 128009
NAMES = {
    BEGIN: "<|begin_of_text|>",
    END_OF_TEXT: "<|end_of_text|>",
    IM_START: "<|im_start|>",
    IM_END: "<|im_end|>",
    128006: "<|start_header_id|>",
    128007: "<|end_header_id|>",
    EOT: "<|eot_id|>",
}
TAGS = {
    128004: "<tool_call>",
    128005: "<tool_response>",
    128008: "<tools>",
    128010: "</tool_call>",
    128011: "</tools>",
    128012: "</tool_response>",
    128013: "<schema>",
    128014: "</schema>",
    128015: "<scratch_pad>",
    128016: "</scratch_pad>",
}
TAG = re.compile(f"({'|'.join(TAGS.values())})")
FORMS = ("special", "added", "absent")  # what a tag is: a special token, an added one, or ordinary text
TEMPLATE = (
    "{{bos_token}}{% for message in messages %}"
    "{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "vocab_size": 128256,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "head_dim": 32,  # the least that vLLM's attention takes on a CPU
    "max_position_embeddings": 8192,
    "rope_theta": 500000.0,
    "rms_norm_eps": 1e-05,
    "hidden_act": "silu",
    "tie_word_embeddings": False,
    "torch_dtype": "bfloat16",
    "transformers_version": "4.42.3",  # without it transformers 5 warns of a regex of Mistral's
    "bos_token_id": BEGIN,
    "eos_token_id": IM_END,
}
# What follows a raw prompt: texts of one token or several, and ids. No token has two places.
CHAINS = (
    (" red", " one", " two", IM_END),
    (" blue", " three", " four", EOT),
    (" green", " five", " six", END_OF_TEXT),
    (" white", " eight", IM_START, " user", IM_END),
    (" brown", "😀日本𝔘", IM_END),  # characters that are cut across tokens
)
STARTS = (" Sure", " Well", "<tool_call>", EOT)  # of a response, each as likely
ENDS = (IM_END, EOT, END_OF_TEXT)


def base_tokenizer():
    """tokenizer.json of Meta's vocabulary alone, as a JSON value. The test skips where the package can't be had."""
    with FileLock(f"{FOLDER}.lock"):
        if not FOLDER.is_dir():
            _convert(FOLDER)
    return json.loads((FOLDER / "tokenizer.json").read_text(encoding="utf-8"))


@cache
def without_weights(form):
    """The folder of a model without its weights, for this process."""
    folder = Path(tempfile.mkdtemp(prefix=f"llama-3-{form}-"))
    atexit.register(shutil.rmtree, folder)
    write_tokenizer(folder, form)
    return folder


def tokenizer(form):
    """The tokenizer, as transformers loads it. It takes a hundred megabytes."""
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(without_weights(form))


def _convert(folder):
    from transformers.convert_slow_tokenizer import TikTokenConverter

    with appearing_whole(folder) as unfinished:
        command = [
            sys.executable,
            "-m",
            "pip",
            "--timeout",
            "15",
            "--retries",
            "2",
            "download",
            "-q",
            "--no-deps",
            "-d",
            unfinished,
            "-r",
            REQUIREMENT,
        ]
        fetched = subprocess.run(command, capture_output=True, text=True)
        if fetched.returncode:
            pytest.skip(f"the vocabulary of Llama 3 can't be downloaded: {fetched.stderr.strip().splitlines()[-1]}")
        with zipfile.ZipFile(next(unfinished.glob("*.whl"))) as wheel:
            wheel.extract(VOCABULARY, unfinished)
        TikTokenConverter(vocab_file=str(unfinished / VOCABULARY)).converted().save(str(unfinished / "tokenizer.json"))


def write_tokenizer(folder, form):
    """All of a model but its weights. `form` is one of FORMS."""
    reserved = iter(range(256))
    tags = {} if form == "absent" else TAGS
    names = {each: {**NAMES, **tags}.get(each) or f"<|reserved_special_token_{next(reserved)}|>" for each in _ADDED}
    plain = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    added = {
        token_id: {"content": name, **plain, "special": not (form == "added" and token_id in TAGS)}
        for token_id, name in names.items()
    }
    bos, text = {"SpecialToken": {"id": NAMES[BEGIN], "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}
    spec = base_tokenizer()
    tokenizer = {
        **spec,
        "model": {**spec["model"], "ignore_merges": False},  # as the 70B has it; Meta's has true
        "added_tokens": [{"id": token_id, **token} for token_id, token in added.items()],
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [bos, text],
            "pair": [bos, text, bos, {"Sequence": {"id": "B", "type_id": 1}}],
            "special_tokens": {NAMES[BEGIN]: {"id": NAMES[BEGIN], "ids": [BEGIN], "tokens": [NAMES[BEGIN]]}},
        },
    }
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": NAMES[BEGIN],
        "eos_token": NAMES[IM_END],
        "pad_token": NAMES[END_OF_TEXT],
        "added_tokens_decoder": {str(token_id): token for token_id, token in added.items()},
        "model_max_length": 8192,
        "chat_template": [{"name": "default", "template": TEMPLATE}, {"name": "tool_use", "template": TEMPLATE}],
    }
    generation = {"bos_token_id": BEGIN, "eos_token_id": [IM_END, EOT], "do_sample": True}
    files = {"tokenizer": tokenizer, "tokenizer_config": settings, "config": CONFIG, "generation_config": generation}
    for name, value in files.items():
        Path(folder, f"{name}.json").write_text(json.dumps(value, ensure_ascii=False), encoding="utf-8")


def write_weights(folder):
    """The weights of the model whose tokenizer is in `folder`.

    Each token that has successors has a dimension of its own. All others share the first one.
    """
    import torch
    from safetensors.torch import save_file

    vocabulary, hidden, inner = (CONFIG[name] for name in ("vocab_size", "hidden_size", "intermediate_size"))
    successors = _successors(folder)
    dimensions = {token: number for number, token in enumerate(dict.fromkeys(before for before, _ in successors), 1)}
    random = torch.Generator().manual_seed(0)
    embedding = torch.randn(vocabulary, hidden, generator=random)
    embedding[:, 0], embedding[:, 1 : len(dimensions) + 1] = 3.0, 0.0
    head = torch.randn(vocabulary, hidden, generator=random) * 0.05
    head[list(ENDS), 0] += 2.4  # a logit of 9: among 128,256 tokens that nothing favours, each end has some 5 %
    for token, dimension in dimensions.items():
        embedding[token] = torch.nn.functional.one_hot(torch.tensor(dimension), hidden)
    for before, after in successors:
        head[after, dimensions[before]] += 4.0  # a logit of 32
    tensors = {"model.embed_tokens.weight": embedding, "lm_head.weight": head, "model.norm.weight": torch.ones(hidden)}
    shapes = {
        **{f"self_attn.{name}_proj": (hidden, hidden) for name in "qkvo"},
        "mlp.gate_proj": (inner, hidden),
        "mlp.up_proj": (inner, hidden),
        "mlp.down_proj": (hidden, inner),
    }
    for layer in range(CONFIG["num_hidden_layers"]):
        for name, shape in shapes.items():
            tensors[f"model.layers.{layer}.{name}.weight"] = torch.zeros(shape)
        for name in ("input_layernorm", "post_attention_layernorm"):
            tensors[f"model.layers.{layer}.{name}.weight"] = torch.ones(hidden)
    half = {name: tensor.to(torch.bfloat16).contiguous() for name, tensor in tensors.items()}
    save_file(half, Path(folder, "model.safetensors"), metadata={"format": "pt"})


def _successors(folder):
    """Pairs of tokens, one after the other."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)

    def ids(item):
        return [item] if isinstance(item, int) else tokenizer.encode(item, add_special_tokens=False)

    chains = [[each for item in chain for each in ids(item)] for chain in CHAINS]
    tag, newline = ids("<tool_call>"), ids("\n")[0]
    chains += [[newline, *ids(start)] for start in STARTS]
    chains += [[ids(text)[0], follower] for text in (" Sure", " Well") for follower in (tag[0], *ENDS)]
    pairs = {(before, after) for chain in chains for before, after in pairwise(chain)}
    return sorted(pairs)
