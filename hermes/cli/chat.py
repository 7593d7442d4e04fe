"""python -m hermes chat: a conversation in the terminal."""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from hermes.chat.request import DEFAULT_SYSTEM_PROMPT
from hermes.cli.notes import notes
from hermes.cli.server import summary
from hermes.client import CogServer, Model, PredictionFailed, ReplicateModel
from hermes.text import without_credentials

HISTORY = Path.home() / ".hermes_history"
HELP = """\
/system TEXT   how the model should behave, from the next answer on
/reset         begin again; the system prompt stays
/retry         answer the last question again
/save FILE     write the conversation as JSON
/load FILE     go on with one
/quit          end, as Ctrl-D does
Alt-Enter begins a new line. Ctrl-C stops an answer."""

out = Console(highlight=False)


def chat(
    url: Annotated[str, typer.Option(help="a Cog server")] = "http://127.0.0.1:5000",
    model: Annotated[str | None, typer.Option(help="owner/name of a model on Replicate, instead of a server")] = None,
    system: Annotated[str, typer.Option(help="how the model should behave")] = DEFAULT_SYSTEM_PROMPT,
    temperature: Annotated[float, typer.Option(min=0, max=2)] = 0.6,
    max_tokens: Annotated[int, typer.Option(min=1)] = 2048,
) -> None:
    """Talk with a model: answers stream as Markdown. /help shows the commands."""
    from prompt_toolkit import PromptSession
    from prompt_toolkit.history import FileHistory
    from prompt_toolkit.key_binding import KeyBindings

    keys = KeyBindings()
    keys.add("enter")(lambda event: event.current_buffer.validate_and_handle())
    keys.add("escape", "enter")(lambda event: event.current_buffer.insert_text("\n"))
    session: PromptSession[str] = PromptSession(history=FileHistory(str(HISTORY)), multiline=True, key_bindings=keys)
    asked = ReplicateModel(model) if model else CogServer(url)
    conversation = Conversation(asked, system, {"temperature": temperature, "max_tokens": max_tokens})
    notes.print(f"talking with {model or without_credentials(url)}; /help shows the commands", style="dim")
    while True:
        try:
            line = session.prompt("> ").strip()
        except KeyboardInterrupt:
            continue
        except EOFError:
            return
        if line == "/quit":
            return
        try:
            conversation.take(line)
        except (PredictionFailed, OSError, ValueError) as error:
            notes.print(str(error), markup=False, style="red")


@dataclass
class Conversation:
    """A conversation, and what a line that was typed does to it."""

    model: Model
    system: str
    sampling: dict[str, Any]
    turns: list[dict[str, Any]] = field(default_factory=list)

    def take(self, line: str) -> None:
        """Answer a line, or do what it commands.

        Raises PredictionFailed, or OSError and ValueError for a file that cannot be used.
        """
        command, _, rest = line.partition(" ")
        commands: dict[str, Callable[[str], None]] = {
            "/help": lambda _: notes.print(HELP),
            "/system": self.set_system,
            "/reset": lambda _: self.turns.clear(),
            "/retry": lambda _: self.retry(),
            "/save": self.save,
            "/load": self.load,
        }
        if command in commands:
            commands[command](rest.strip())
        elif line.startswith("/"):
            raise ValueError(f"there is no command {command}; /help shows them")
        elif line:
            self.turns.append({"role": "user", "content": line})
            self.answer()

    def set_system(self, text: str) -> None:
        """Take another system prompt; show the one that is there if none is given."""
        self.system = text or self.system
        notes.print(f"system: {self.system}", markup=False, style="dim")

    def retry(self) -> None:
        """Answer the last question again. Raises ValueError if there is none."""
        while self.turns and self.turns[-1]["role"] != "user":
            self.turns.pop()
        if not self.turns:
            raise ValueError("there is no question yet")
        self.answer()

    def answer(self) -> None:
        """Stream the answer to the last question. Ctrl-C keeps what there is of it.

        Raises PredictionFailed; the question is then taken back.
        """
        from rich.live import Live
        from rich.markdown import Markdown  # no other command has to wait for it

        said: list[str] = []
        inputs = {"system_prompt": self.system, "messages": self.turns, **self.sampling}
        with Live(console=out, refresh_per_second=12, vertical_overflow="visible") as live:

            def show(piece: str) -> None:
                said.append(piece)
                live.update(Markdown("".join(said)))

            try:
                response = self.model.ask(inputs, show)
            except KeyboardInterrupt:
                response = None
            except PredictionFailed:
                self.turns.pop()
                raise
        self.turns.append({"role": "assistant", "content": "".join(said)})
        notes.print(summary(response.metrics) if response else "stopped", style="dim")

    def save(self, name: str) -> None:
        """Write the conversation."""
        saved = {"system": self.system, "messages": self.turns}
        Path(name).write_text(json.dumps(saved, ensure_ascii=False, indent=1), encoding="utf-8")
        notes.print(f"{len(self.turns)} turns are in {name}", markup=False, style="dim")

    def load(self, name: str) -> None:
        """Read a conversation. Raises ValueError if the file holds none."""
        saved = json.loads(Path(name).read_text(encoding="utf-8"))
        if not isinstance(saved, dict) or not isinstance(saved.get("messages"), list):
            raise ValueError(f"{name} holds no conversation")  # noqa: TRY004
        self.system, self.turns = str(saved.get("system", self.system)), saved["messages"]
        notes.print(f"{len(self.turns)} turns", style="dim")
