"""python -m evaluation functions | json | chat | card: see docs/evaluation.md.

Each part writes its replies and its figures to a folder, goes on where it was killed, and writes the report anew.
"""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from evaluation import asking, card, chat, functions, json_mode, report
from hermes.cli import run
from hermes.cli.notes import notes
from hermes.cli.server import local_server, wait_until_ready
from hermes.devserver.server import PROJECT
from hermes.engine.installation import installed_build
from hermes.settings import Settings

app = typer.Typer(no_args_is_help=True, add_completion=False, help=__doc__, pretty_exceptions_enable=False)

PACKAGES = PROJECT / ".evaluation"
Out = Annotated[Path, typer.Option("--out", "-o", help="the folder of this run")]
Url = Annotated[str | None, typer.Option(help="of a Cog server; a server of its own if not given")]
Seed = Annotated[int, typer.Option(help="draws the sample, and is that of each response")]
RESULTS = PROJECT / "evaluation" / "results"
ANSWERS_DEPEND_ON = {  # of the settings
    *("profile", "model", "weights_dir", "weights_lock", "prompt_template", "engine_args", "speculation"),
    *("request_timeout", "stream_interval"),
}


@contextmanager
def served(url: str | None) -> Iterator[str]:
    """The URL of a server: the given one, or one that runs meanwhile."""
    if url:
        yield url
        return
    with local_server() as server:
        wait_until_ready(server)
        yield server.url


def asked_of(url: str | None) -> str:
    """What a part was measured on: a server that ran already, or the model of the settings."""
    if url:
        return f"{url}, {asking.model_at(url)}"
    settings = Settings.load()
    return f"{settings.source}, profile {settings.profile}"


def answered_by(url: str | None, at: str) -> str:
    """The server at a URL, its model and its settings, for the key of its replies."""
    of_own = Settings.load().model_dump_json(include=ANSWERS_DEPEND_ON) + installed_build()
    return f"{url or of_own}, {asking.model_at(at)}"


def part_of(what: str, number: int | None, seed: int) -> str:
    """How much was measured, for the report."""
    return f"all {what}" if number is None else f"{number} {what}, seed {seed}"


def keep(out: Path, part: str, found: Any, asked: str) -> None:
    """Put the figures of a part, and what it was measured on, into the report."""
    path = out / "report.json"
    whole: dict[str, Any] = {"title": "Evaluation", "about": {}}
    if path.is_file():
        whole = json.loads(path.read_text(encoding="utf-8"))
    whole["about"][part], whole[part] = asked, found
    out.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(whole, indent=1) + "\n", encoding="utf-8")
    (out / "report.md").write_text(report.markdown(whole), encoding="utf-8")
    (out / "report.html").write_text(report.page(whole), encoding="utf-8")
    print(report.markdown({**whole, **dict.fromkeys(set(report.TABLES) - {part})}))
    notes.print(f"the report is {out / 'report.html'}")


@app.command("functions")
def measure_functions(
    out: Out = RESULTS,
    url: Url = None,
    sample: Annotated[int | None, typer.Option(help="questions of each category; all if not given")] = None,
    category: Annotated[list[str] | None, typer.Option(help="all if not given")] = None,
    required: Annotated[bool, typer.Option("--required", help="ask for a call, where there is a right one")] = False,
    wheel: Annotated[Path, typer.Option(help="where bfcl-eval is installed")] = PACKAGES / "bfcl",
    seed: Seed = 0,
) -> None:
    """Function calling: the questions of BFCL v4. Exit code 1 says that a call was invalid, lost or invented."""
    data = wheel / "bfcl_eval" / "data"
    if unknown := sorted(set(category or ()) - set(functions.CATEGORIES)):
        raise typer.BadParameter(f"there is no category {unknown[0]}; there are {', '.join(functions.CATEGORIES)}")
    if not data.is_dir():
        raise typer.BadParameter(f"bfcl-eval is not in {wheel}; `make evaluate` installs it")
    part, found = "functions_required" if required else "functions", {}
    with served(url) as at:
        asked, by = asked_of(url), answered_by(url, at)
        for name in category or functions.CATEGORIES:
            if required and name == functions.NO_CALL:
                continue
            cases = functions.cases(data, name, sample, seed)
            questions = [case.asked(seed, required=required) for case in cases]
            replies = asking.ask_all(at, questions, out / part / f"{name}.jsonl", by)
            figures = functions.figures(cases, replies, functions.judged(cases, replies, wheel))
            found[name] = asdict(figures)
    keep(out, part, found, f"{asked}; {part_of('questions of each category', sample, seed)}")
    if any(each[wrong] for each in found.values() for wrong in ("refused", "invalid", "differing")):
        raise typer.Exit(1)


@app.command("json")
def measure_json(
    schemas: Annotated[Path, typer.Argument(help="JSON lines with id and schema, perhaps as .gz")],
    out: Out = RESULTS,
    url: Url = None,
    sample: Annotated[int, typer.Option(help="schemas")] = 500,
    seed: Seed = 0,
) -> None:
    """JSON mode: one document for each schema. Exit code 1 says that one was invalid though all was enforced."""
    drawn = json_mode.schemas_in(schemas, sample, seed)
    with served(url) as at:
        asked, by = asked_of(url), answered_by(url, at)
        replies = asking.ask_all(at, json_mode.asked(drawn, seed), out / "json.jsonl", by)
    found = json_mode.documents(drawn, replies)
    keep(out, "json", asdict(found), f"{asked}; {part_of('schemas', sample, seed)}")
    if found.invalid_though_enforced:
        raise typer.Exit(1)


@app.command("chat")
def write_answers(
    out: Out = RESULTS,
    url: Url = None,
    questions: Annotated[Path, typer.Option(help="in the form of MT-Bench's question.jsonl")] = chat.QUESTIONS,
    model: Annotated[str, typer.Option(help="the name in the answers")] = "hermes",
    seed: Seed = 0,
) -> None:
    """Answer two-turn questions, in the form of FastChat's files of answers."""
    with served(url) as at:
        answers = chat.answered(at, asking.read_lines(questions), out / "chat.jsonl", model, seed, answered_by(url, at))
    path = out / "model_answer" / f"{model}.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(each) + "\n" for each in answers), encoding="utf-8")
    print(path)


@app.command("card")
def compare_with_card(
    out: Out = RESULTS,
    tasks: Annotated[list[str] | None, typer.Option("--task", help="of lm-eval; the card's if not given")] = None,
    include: Annotated[Path | None, typer.Option("--include-path", help="a folder of tasks of your own")] = None,
    told: Annotated[Path, typer.Option("--card", help="values to compare with, as evaluation/card.csv")] = card.CARD,
    packages: Annotated[Path, typer.Option(help="where lm-eval is installed")] = PACKAGES / "lm-eval",
    limit: Annotated[int | None, typer.Option(help="questions of each task; all if not given")] = None,
    seed: Seed = 0,
) -> None:
    """The card's tables, by lm-eval on the engine itself. Exit code 1 says that a value is off by more than chance."""
    values = card.read_card(told)
    wanted = list(tasks or card.tasks_of(values))
    measured = card.measure(Settings.load(), wanted, out / "card", packages, include, limit, seed)
    rows = card.compared(values, measured)
    found = [
        {
            **{name: getattr(each.told, name) for name in ("suite", "task", "metric", "changed")},
            "card": each.told.value,
            "card_stderr": each.told.stderr,
            "value": each.value,
            "stderr": each.stderr,
            "errors": each.errors,
            "off": each.off,
        }
        for each in rows
    ]
    keep(out, "card", found, f"{asked_of(None)}; {part_of('questions of each task', limit, seed)}")
    if any(each.off for each in rows):
        raise typer.Exit(1)


if __name__ == "__main__":
    os.environ.setdefault("HERMES_PROFILE", "local")  # as the server of `served` has it: the report names the model
    run(app)
