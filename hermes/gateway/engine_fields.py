"""Fields of vLLM's requests that each dialect of the gateway decides on in the same way."""

NO_PROBABILITIES = "the server returns no probabilities of tokens"
NO_BIAS = "the server cannot favour or exclude single tokens"
NO_BEAMS = "there is no beam search"
NO_TRANSFER = "the server transfers no KV cache"
ENDS_ITSELF = "a response ends where the model ends it; send min_tokens"  # ignore_eos, but for chats and completions
# vLLM's older names of structured_outputs, which it ignores now.
GUIDED = (
    *("guided_json", "guided_json_object", "guided_choice", "guided_grammar", "guided_regex"),
    "guided_whitespace_pattern",
)

REFUSED = {
    "allowed_token_ids": NO_BIAS,
    "bad_words": NO_BIAS,
    "ec_transfer_params": NO_TRANSFER,
    "include_stop_str_in_output": "the text of stop is never part of the response",
    "kv_transfer_params": NO_TRANSFER,
    "length_penalty": NO_BEAMS,
    "logit_bias": NO_BIAS,
    "logprob_token_ids": NO_PROBABILITIES,
    "logprobs": NO_PROBABILITIES,
    "prompt_logprobs": NO_PROBABILITIES,
    "repetition_detection": "the server does not look for repetitions; send repetition_penalty",
    "return_token_ids": "the response has text only; /tokenize has token ids",
    "skip_special_tokens": "control tokens are never part of the response",
    "stop_token_ids": "the server stops at texts only; send stop",
    "top_logprobs": NO_PROBABILITIES,
    "truncate_prompt_tokens": "a prompt is not cut within a message; in chats, truncate leaves the oldest turns out",
    "use_beam_search": NO_BEAMS,
    "vllm_xargs": "the engine has no arguments beyond the documented ones",
    "watermarking": "the server adds no watermark",
}

# Of the refused fields: values that change nothing.
DEFAULTS = {"length_penalty": 1.0, "skip_special_tokens": True, "top_logprobs": 0}

HARMLESS = {
    "cache_salt": "the engine's prefix cache changes no answer",
    "mm_payload": "there is no multimodal input",
    "priority": "the queue is first come, first served",
    "request_id": "the response has an id of its own",
    "return_mm_kwargs": "there is no multimodal input",
    "return_token_offsets": "vLLM has it for its render endpoints only",
    "return_tokens_as_token_ids": "how probabilities are written, and there are none",
    "routed_experts_prompt_start": "no experts are returned",
    "session_id": "names a session, for routing",
    "spaces_between_special_tokens": "control tokens are not shown",
    "stream_interval": "pieces are sent as they come",
    "thinking_token_budget": "the model does not reason",
    "truncation_side": "goes with truncate_prompt_tokens, which is refused",
    "user": "names a person, for statistics",
}

# In chat completions and responses.
HARMLESS_IN_CHATS = {
    "chat_template_kwargs": "the model's format has no variables",
    "include_reasoning": "the model does not reason",
    "media_io_kwargs": "there is no multimodal input",
    "mm_processor_kwargs": "there is no multimodal input",
    "prompt_cache_options": "the engine's prefix cache changes no answer",
    "prompt_cache_retention": "the engine's prefix cache changes no answer",
}
