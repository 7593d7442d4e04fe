"""A conversation of several turns: the model remembers what was said. Needs a running server (make serve)."""

import sys

from hermes import CogServer

model = CogServer(sys.argv[1] if len(sys.argv) > 1 else "http://127.0.0.1:5000")
messages = [{"role": "system", "content": "You are Hermes 2. Answer in one sentence."}]
for question in ("My name is Bob. What is the capital of France?", "What is my name?"):
    messages.append({"role": "user", "content": question})
    print(f"> {question}")
    response = model.ask(
        {"messages": messages, "max_tokens": 60, "temperature": 0, "truncate": "oldest_turns"},
        on_text=lambda piece: print(piece, end="", flush=True),
    )
    print(f"\n  ({response.finish_reason}, {response.metrics['input_token_count']} tokens in)")
    messages.append({"role": "assistant", "content": response.text})
