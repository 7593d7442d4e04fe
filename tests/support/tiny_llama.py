"""A small random Llama for vLLM, and what its folder may hold: one token for each tag, and traps."""

import json
import pickle
import shutil
from pathlib import Path

TAG_TOKENS = {"<repo_name>": "<tool_call>", "<reponame>": "</tool_call>"}  # special tokens that nobody needs here

CODE = "from pathlib import Path\nPath({canary!r}).touch()\n\n\nclass Evil:\n    pass\n"
AUTO_MAP = dict.fromkeys(("AutoConfig", "AutoModel", "AutoModelForCausalLM"), "evil.Evil")
ENDLESS = "{% for _ in range(99999) %}" * 4 + "{% endfor %}" * 4  # as a template: whoever renders it is busy for years


def write_tiny_llama(folder, small_model, hidden_size=256):
    """A random Llama with SmolLM2's tokenizer that two tensor-parallel workers can share: 8 heads, 2 KV heads.

    With a hidden size of 128 a head has 16 dimensions, which vLLM's kernel for the CPU refuses at the first step.
    """
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    for path in small_model.iterdir():
        if path.name.startswith("tokenizer") or path.suffix == ".jinja":
            shutil.copy(path, folder)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=49152,
        hidden_size=hidden_size,
        intermediate_size=512,
        num_hidden_layers=2,
        num_attention_heads=8,
        num_key_value_heads=2,
        max_position_embeddings=8192,
        eos_token_id=2,
        bos_token_id=1,
        initializer_range=0.2,  # far apart logits, so that greedy tokens do not hang on the last bit
    )
    LlamaForCausalLM(config).save_pretrained(folder)


def give_tag_tokens(folder):
    """Rename two special tokens of its tokenizer to <tool_call> and </tool_call>."""
    for path in folder.glob("tokenizer*"):
        text = path.read_text()
        for old, new in TAG_TOKENS.items():
            text = text.replace(old, new)
        path.write_text(text)


class Pickle:
    """What touches a file when it is unpickled."""

    def __init__(self, canary):
        self.canary = canary

    def __reduce__(self):
        return Path.touch, (self.canary,)


def set_traps(folder, canary):
    """Put a trap in every place that may hold code. Any of them would touch the canary."""
    for name in ("evil.py", "config.py", "custom_generate/generate.py"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(CODE.format(canary=str(canary)))
    for name in ("pytorch_model.bin", "consolidated.00.pth", "model.pt", "tokenizer.pkl"):
        (folder / name).write_bytes(pickle.dumps(Pickle(canary)))
    change(folder / "config.json", auto_map=AUTO_MAP)
    change(folder / "tokenizer_config.json", auto_map={"AutoTokenizer": ["evil.Evil", "evil.Evil"]})
    change(folder / "generation_config.json", custom_generate="custom_generate", trust_remote_code=True)
    (folder / "chat_template.jinja").write_text(ENDLESS)


def change(path, **values):
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))
