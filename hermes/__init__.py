"""Hermes-2-Theta-Llama-3-70B as a Replicate Cog package, on vLLM."""
