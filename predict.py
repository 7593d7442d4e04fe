"""The Cog face: inputs in, text pieces out.

Cog's build reads this file as text and never runs it, so every Input is a plain literal in one piece.
"""

from typing import Optional

from cog import AsyncConcatenateIterator, BaseRunner, Input, concurrent, current_scope, streaming

from hermes.serving import ChatService, CogWorker, relayed


class Predictor(BaseRunner):
    """What Cog runs."""

    async def setup(self, weights: Optional[str] = None) -> None:
        """Start the engine on the weights, which COG_WEIGHTS or the settings name."""
        worker = CogWorker()
        self.chat = await ChatService.start(worker.settings, weights)
        worker.look_after(self.chat)

    @streaming
    @concurrent(max=32)
    @relayed
    async def predict(
        self,
        prompt: str = Input(description="What to ask or tell the model.", default=""),
        system_prompt: str = Input(
            description="How the model should behave: its role, rules and style. Empty for none. Used by ChatML and by {system_prompt} in prompt_template.",
            default="You are a helpful assistant.",
        ),
        min_tokens: int = Input(
            description="Fewest tokens to generate; the model cannot end its turn before.", default=0, ge=0, le=131072
        ),
        max_tokens: int = Input(
            description="Most tokens to generate. Lowered to what the context of the model still takes after the prompt. 0 generates nothing: the metric tokenized has the prompt's tokens.",
            default=512,
            ge=0,
            le=131072,
        ),
        temperature: float = Input(
            description="How freely tokens are drawn. 0 always takes the likeliest, 1 draws as the model was trained to, above 1 draws more freely.",
            default=0.6,
            ge=0,
            le=2,
        ),
        top_p: float = Input(
            description="Draw only from the likeliest tokens that together have this probability. 1 draws from all; 0 is refused.",
            default=0.9,
            ge=0,
            le=1,
        ),
        top_k: int = Input(
            description="Draw only from this many of the likeliest tokens. 0 or -1 draws from all.",
            default=50,
            ge=-1,
            le=1000000,
        ),
        presence_penalty: float = Input(
            description="Above 0 favours tokens that the response does not have yet. Below 0 favours those that it has.",
            default=0.0,
            ge=-2,
            le=2,
        ),
        frequency_penalty: float = Input(
            description="As presence_penalty, but it grows with each time that the response has the token.",
            default=0.0,
            ge=-2,
            le=2,
        ),
        stop_sequences: Optional[str] = Input(
            description="Texts that end the response when the model writes one, separated by commas. They are not part of the response, and do not end JSON or a tool call.",
            default=None,
        ),
        prompt_template: Optional[str] = Input(
            description="A raw prompt instead of ChatML. {prompt} and {system_prompt} in it are replaced, also in two braces. The rest stays as it is, control tokens included.",
            default=None,
        ),
        seed: Optional[int] = Input(
            description="Makes a response repeatable on the same server. Without it, one is drawn at random. The metrics report it. 0 is a seed like any other.",
            default=None,
            ge=0,
            le=9007199254740991,
        ),
        messages: Optional[list[dict]] = Input(
            description="A conversation of many turns, in the shape of OpenAI's API: objects with role (system or developer, user, assistant, tool) and content. Assistant turns may have tool_calls, tool turns tool_call_id or name. A prompt beside it is the last user turn. A system turn in it wins over system_prompt.",
            default=None,
        ),
        tools: Optional[list[dict]] = Input(
            description="Functions that the model may call, in the shape of OpenAI's, Anthropic's or MCP's API: objects with name, description and parameters (a JSON schema). The metrics have the calls, checked against the schema.",
            default=None,
        ),
        tool_choice: str = Input(
            description="auto: the model decides. none: no call. required: one to four calls and nothing else. Or the name of the tool to call once, with nothing else.",
            default="auto",
        ),
        json_schema: Optional[dict] = Input(
            description="The response is one JSON document that satisfies this JSON schema. OpenAI's response_format is taken, too. Beside tools the response is calls or this document.",
            default=None,
        ),
        repetition_penalty: float = Input(
            description="Above 1 disfavours tokens that the prompt or the response already has. Below 1 favours them.",
            default=1.0,
            ge=0.01,
            le=10,
        ),
        min_p: float = Input(
            description="Draw only from tokens at least this likely compared to the likeliest. 0 draws from all.",
            default=0.0,
            ge=0,
            le=1,
        ),
        truncate: str = Input(
            description="What to do with a conversation that is too long. error refuses it. oldest_turns leaves out the oldest turns, never the system turn, until the response fits.",
            default="error",
            choices=["error", "oldest_turns"],
        ),
        timeout: Optional[float] = Input(
            description="Seconds after which the response ends with what it has and finish_reason timeout. The server has its own limit; the shorter one counts.",
            default=None,
            ge=0.01,
            le=86400,
        ),
        stop: Optional[list[str]] = Input(
            description="As stop_sequences, but a list of texts, which may hold commas. Both may be given.",
            default=None,
        ),
        parallel_tool_calls: bool = Input(
            description="Whether a response may have more than one tool call.", default=True
        ),
        continue_final_message: bool = Input(
            description="Whether the response goes on with the last message, which has to be the assistant's. Otherwise it begins a turn of its own.",
            default=False,
        ),
        prompt_token_ids: Optional[list[int]] = Input(
            description="The whole prompt as token ids of the model, control tokens included, in place of all other prompts.",
            default=None,
        ),
    ) -> AsyncConcatenateIterator[str]:
        """Stream one response: Cog reads the annotation, and `relayed` takes the Response."""
        return self.chat.respond(
            current_scope().record_metric,
            prompt=prompt,
            system_prompt=system_prompt,
            min_tokens=min_tokens,
            max_tokens=max_tokens,
            temperature=temperature,
            top_p=top_p,
            top_k=top_k,
            presence_penalty=presence_penalty,
            frequency_penalty=frequency_penalty,
            stop_sequences=stop_sequences,
            prompt_template=prompt_template,
            seed=seed,
            messages=messages,
            tools=tools,
            tool_choice=tool_choice,
            json_schema=json_schema,
            repetition_penalty=repetition_penalty,
            min_p=min_p,
            truncate=truncate,
            timeout=timeout,
            stop=stop,
            parallel_tool_calls=parallel_tool_calls,
            continue_final_message=continue_final_message,
            prompt_token_ids=prompt_token_ids,
        )

    async def healthcheck(self) -> bool:
        """Whether the engine still answers."""
        return self.chat.engine.alive
