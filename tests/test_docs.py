"""The pages agree with the code, lead to each other and can be read once."""

import asyncio
import re

import pytest

from hermes.cli import main
from hermes.devserver.predictor import PredictorSource
from hermes.devserver.server import PROJECT
from hermes.serving.metrics import Meter
from hermes.settings import PREFIX, Settings
from hermes.sizing import KNOWN_SHAPES, EngineArguments, parse_gpus, plan_memory
from hermes.sizing.gpus import GPUS
from tests.support.fakes import request
from tests.test_errors import CODED

README = PROJECT / "README.md"
PAGES = [*PROJECT.glob("*.md"), *PROJECT.glob("docs/*.md"), PROJECT / "weights" / "README.md"]
MOST_WORDS = 25
pages = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(PROJECT)))


def rows(page, heading):
    """The rows of the first table under a heading, as lists of cells."""
    section = (PROJECT / "docs" / page).read_text().split(f"{heading}\n", 1)[1]
    table = re.search(r"((?:^\|.*\n)+)", section, re.MULTILINE)[1].splitlines()[2:]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in table]


def prose(page):
    """The text of a page without its code blocks."""
    return re.sub(r"^ *```.*?^ *```$", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)


def code_lines(page):
    blocks = re.findall(r"^ *```\w*\n(.*?)^ *```$", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    return [line for block in blocks for line in block.splitlines()]


def anchors(page):
    """The names that GitHub gives the headings."""
    headings = re.findall(r"^#+ (.*)$", prose(page), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def sentences(text):
    """The sentences of a text in Markdown: a heading and an item of a list end one, and a table has none."""
    text = re.sub(r"^\|.*$", "", text, flags=re.MULTILINE)
    text = re.sub(r"\]\([^)]*\)", "]", text)  # addresses of links
    text = re.sub(r"`[^`]*`", "code", text)
    text = re.sub(r"^(#+ .*)$", r"\n\1\n", text, flags=re.MULTILINE)
    text = re.sub(r"^ *(?:[-*]|\d+\.) ", "\n\n", text, flags=re.MULTILINE)
    for paragraph in re.split(r"\n\s*\n", text):
        yield from re.split(r"(?<=[.!?])[\"')*]*\s+", " ".join(paragraph.split()))


def words(sentence):
    return [word for word in sentence.split() if re.search(r"\w", word)]


def test_the_inputs_are_those_of_predict_py():
    schemas = PredictorSource(PROJECT / "predict.py").openapi()["components"]["schemas"]

    def bounds(name, schema):
        if "maximum" in schema:
            return f"{schema['minimum']} to {schema['maximum']}"
        return " or ".join(f"`{choice}`" for choice in schemas.get(name, {}).get("enum", []))

    def shown(value):
        return "" if value is None else f"`{value}`" if value != "" else '`""`'

    assert rows("http-api.md", "## Inputs") == [
        [
            f"`{name}`",
            schema.get("type") or schemas[name]["type"],
            shown(schema["default"]),
            bounds(name, schema),
            schema["description"],
        ]
        for name, schema in schemas["Input"]["properties"].items()
    ]


def test_the_metrics_are_those_that_are_recorded():
    recorded = set()
    for inputs in ({"tools": [{"name": "f"}]}, {"json_schema": {}}, {"truncate": "oldest_turns"}):
        meter = Meter(
            request(**inputs),
            context_tokens=1,
            tokenized={},
            input_token_count=1,
            max_tokens=1,
            time_to_first_token=1.0,
            finish_reason="stop",
            preemptions=1,
        )
        asyncio.run(meter.read_text())
        recorded |= {f"`{name}`" for name, _ in meter.metrics()}
    assert {row[0] for row in rows("http-api.md", "## Metrics")} == recorded


def test_the_errors_are_those_of_the_tree():
    expected = [[child.code, child.__name__, child.__doc__] for child in CODED]
    assert rows("http-api.md", "## Errors") == sorted(expected)


def test_the_settings_are_those_that_are_read():
    documented = {row[0] for row in rows("settings.md", "# Settings") if row[0].startswith(f"`{PREFIX}")}
    assert documented == {f"`{PREFIX}{name.upper()}`" for name in Settings.model_fields}


PRICE = 10.08  # dollars an hour


@pytest.mark.parametrize(("column", "profile"), [(1, "production"), (2, "production-fp8"), (3, "production-fp8")])
def test_the_choice_in_production_is_that_of_the_plan(column, profile):
    told = {row[0]: row[column] for row in rows("production.md", "## Choose")}
    shape = KNOWN_SHAPES["NousResearch/Hermes-2-Theta-Llama-3-70B"]
    count, gpu = parse_gpus("2xA100-80GB")
    plan = plan_memory(
        shape, gpu, count, **EngineArguments.read(Settings(profile=profile).arguments({}, quantised=False)).planned
    )
    one, everyone = plan.decode_tokens_per_second, plan.full_tokens_per_second
    download = shape.parameters * 2 / 1e9 if column < 3 else plan.weights_bytes * count / 1e9
    wanted = {
        "download at a cold start": f"{download:.1f} GB",
        "at 1 GB/s": f"{download:.0f} s",
        "KV cache": f"{plan.kv_tokens:,} tokens",
        "full conversations of 8,192 tokens": f"{plan.full_conversations:.1f}",
        "one client, at most": f"{one:.0f} tokens/s",
        "all clients, at most": f"{everyone:,.0f} tokens/s",
        "a million tokens, one client": f"${PRICE / 3600 / one * 1e6:,.2f}",
        "a million tokens, all clients": f"${PRICE / 3600 / everyone * 1e6:,.2f}",
    }
    assert {name: told[name] for name in wanted} == wanted
    short = [f"{plan.kv_tokens:,} tokens", f"{plan.full_conversations:.1f}", f"{one:.0f} tokens/s"]
    assert short in [row[1:] for row in rows("../README.md", "## Run the 70B with Docker") if f"`{profile}`" in row[0]]


def test_other_gpus_have_the_numbers_of_the_plan():
    methods = {"bf16": None, "fp8": "fp8_per_block"}
    for gpus, weights, *told in rows("sizing.md", "On other GPUs, or without the profile:"):
        shape, (count, gpu) = KNOWN_SHAPES["NousResearch/Hermes-2-Theta-Llama-3-70B"], parse_gpus(gpus)
        plan = plan_memory(shape, gpu, count, quantization=methods[weights])
        room = [f"{plan.kv_bytes / 2**30:.1f} GiB", f"{plan.kv_tokens:,}", f"{plan.full_conversations:.1f}"]
        numbers = [*room, f"{plan.decode_tokens_per_second:.0f} tokens/s"]
        assert told == [f"{plan.weights_bytes / 2**30:.1f} GiB", *(numbers if plan.fits else ["does not fit", *"---"])]


@pytest.mark.parametrize(
    ("options", "begin"),
    [
        (["--price", "7.50"], ("a million",)),
        (["--draft", "hf://NousResearch/Hermes-2-Theta-Llama-3-8B"], ("draft", "a token", "tokens ")),
    ],
)
def test_the_plans_in_production_are_what_the_command_prints(options, begin, monkeypatch, capsys):
    monkeypatch.setenv("HERMES_PROFILE", "production-fp8")
    assert main(["plan", *options]) == 0
    printed = [line for line in capsys.readouterr().out.splitlines() if line.startswith(begin)]
    assert printed
    assert set(printed) <= set(code_lines(PROJECT / "docs" / "production.md"))


def test_the_readme_is_one_page():
    assert len(README.read_text().splitlines()) <= 200
    assert README.stat().st_size <= 12_288


def test_the_first_command_stands_within_twenty_lines():
    assert any(line.startswith("docker compose up") for line in README.read_text().splitlines()[:20])


@pytest.mark.parametrize("page", ["README.md", "docs/docker.md"])
def test_the_oldest_docker_that_cog_can_build_with_is_named(page):
    """20.10 builds everything, and then fails."""
    assert "Docker 23 or newer" in (PROJECT / page).read_text()


def test_the_readme_leads_to_every_page():
    linked = set(re.findall(r"\]\(([^)#]+)", README.read_text()))
    assert {str(page.relative_to(PROJECT)) for page in PROJECT.glob("docs/*.md")} <= linked


@pages
def test_links_lead_somewhere(page):
    broken = []
    for link in re.findall(r"\]\(([^)\s]+)\)", prose(page)):
        name, _, anchor = link.partition("#")
        target = page.parent / name if name else page
        if not link.startswith("https://") and not (target.exists() and (not anchor or anchor in anchors(target))):
            broken.append(link)
    assert broken == []


@pages
def test_the_commands_exist(page):
    targets = re.findall(r"^([a-z-]+):", (PROJECT / "Makefile").read_text(), re.MULTILINE)
    assert set(re.findall(r"(?:`|\$ |^)make ([a-z-]+)", page.read_text(), re.MULTILINE)) <= set(targets)


@pages
def test_no_sentence_is_too_long_to_read_once(page):
    long = [each for each in sentences(prose(page)) if len(words(each)) > MOST_WORDS]
    assert not long, f"more than {MOST_WORDS} words, so make two sentences of each:\n" + "\n".join(long)


@pages
def test_code_and_output_fit_on_a_screen(page):
    assert [line for line in code_lines(page) if len(line) > 125] == []


def test_sentences_are_found_in_markdown():
    page = (
        "# A heading\nOne `piece of code`. A [link](docs/x.md) ends.\n\n- An item\n  goes on\n- Another\n\n| a | b |\n"
    )
    assert list(filter(None, sentences(page))) == [
        "# A heading",
        "One code.",
        "A [link] ends.",
        "An item goes on",
        "Another",
    ]


def test_the_known_gpus_are_those_of_the_plan():
    *most, last = GPUS
    text = (PROJECT / "docs" / "sizing.md").read_text()
    assert f"`--gpus` knows {', '.join(most)} and {last}." in " ".join(text.split())
