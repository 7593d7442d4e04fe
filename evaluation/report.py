"""The results as one page: Markdown to read in a terminal, and HTML with bars that needs no other file."""

import html
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

WIDTH, HEIGHT, LABEL = 640, 22, 210  # of a bar's row, in pixels
Row = Sequence[str]


def share(part: int, whole: int) -> str:
    """`12 of 40 (30%)`"""
    return f"{part} of {whole} ({part / whole:.0%})" if whole else "0 of 0"


def functions_table(found: Mapping[str, Mapping[str, Any]]) -> Iterator[Row]:
    """A row for each category of BFCL, as the JSON report has them."""
    yield ("category", "right", "refused", "calls", "invalid", "differing", "cut off", "partly enforced")
    for name, each in found.items():
        counts = (len(each["refused"]), each["calls"], len(each["invalid"]), len(each["differing"]), each["cut_off"])
        yield (name, share(each["right"], each["questions"]), *map(str, counts), str(each["unenforced"]))


def documents_table(each: Mapping[str, Any]) -> Iterator[Row]:
    """The figures of JSON mode."""
    seconds = sorted(each["seconds"]) or [0.0]
    yield ("schemas", "valid", "cut off", "invalid", "invalid though enforced", "refused", "seconds p50 / p95")
    yield (
        str(each["schemas"]),
        share(each["valid"], each["schemas"]),
        *(str(each[name] if isinstance(each[name], int) else len(each[name])) for name in ("cut_off", "invalid")),
        str(len(each["invalid_though_enforced"])),
        str(len(each["refused"])),
        f"{statistics.median(seconds):.1f} / {seconds[min(len(seconds) - 1, int(0.95 * len(seconds)))]:.1f}",
    )


def card_table(found: Sequence[Mapping[str, Any]]) -> Iterator[Row]:
    """A row for each value of the card."""
    yield ("suite", "task", "metric", "card", "here", "standard errors", "note")
    for each in found:
        note = "off" if each["off"] else "" if each["value"] is not None else "not measured"
        yield (
            each["suite"],
            each["task"],
            each["metric"],
            f"{each['card']:.4f} ± {each['card_stderr']:.4f}",
            "" if each["value"] is None else f"{each['value']:.4f} ± {each['stderr']:.4f}",
            "" if each["errors"] is None else f"{each['errors']:+.1f}",
            "; ".join(filter(None, (note, each["changed"]))),
        )


TABLES: Mapping[str, tuple[str, Callable[[Any], Iterator[Row]]]] = {
    "functions": ("Function calling (BFCL v4)", functions_table),
    "functions_required": ("Function calling, a call required (BFCL v4)", functions_table),
    "json": ("JSON mode", documents_table),
    "card": ("The card's tables", card_table),
}


def sections(found: Mapping[str, Any]) -> Iterator[tuple[str, list[Row], list[tuple[str, float]]]]:
    """The title, the table and the bars (a name and a share) of each part that was measured."""
    for name, (title, table) in TABLES.items():
        if found.get(name):
            yield title, list(table(found[name])), list(_bars(name, found[name]))


def _bars(name: str, found: Any) -> Iterator[tuple[str, float]]:
    if name.startswith("functions"):
        yield from ((each, figures["right"] / (figures["questions"] or 1)) for each, figures in found.items())
    elif name == "json":
        yield from ((part, found[part] / (found["schemas"] or 1)) for part in ("valid", "cut_off"))
    else:
        yield from ((f"{each['task']} {each['metric']}", each["value"]) for each in found if each["value"] is not None)


def markdown(found: Mapping[str, Any]) -> str:
    """The report in Markdown."""
    lines = [f"# {found['title']}", "", *(f"- {name}: {value}" for name, value in found["about"].items())]
    for title, (head, *rows), _ in sections(found):
        lines += ["", f"## {title}", "", _line(head), "|" + "---|" * len(head), *map(_line, rows)]
    return "\n".join(lines) + "\n"


def _line(row: Row) -> str:
    return "| " + " | ".join(row) + " |"


STYLE = (
    "body{font:16px/1.5 system-ui,sans-serif;max-width:70rem;margin:2rem auto;padding:0 1rem;color:#222;"
    "background:#fff}table{border-collapse:collapse;display:block;overflow-x:auto}td,th{padding:.2rem .7rem;"
    "text-align:left;border-bottom:1px solid #ccc}svg{max-width:100%}rect{fill:#4a7dbd}"
    "text{font-size:13px;fill:currentColor}"
    "@media(prefers-color-scheme:dark){body{color:#ddd;background:#181818}}"
)


def page(found: Mapping[str, Any]) -> str:
    """The report as one HTML document."""
    body = [f"<h1>{html.escape(found['title'])}</h1><ul>"]
    body += [f"<li>{html.escape(f'{name}: {value}')}</li>" for name, value in found["about"].items()]
    body.append("</ul>")
    for title, (head, *rows), bars in sections(found):
        body += [f"<h2>{html.escape(title)}</h2>", _plot(bars), "<table>", _cells("th", head)]
        body += [*(_cells("td", row) for row in rows), "</table>"]
    name = html.escape(found["title"])
    return f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{name}</title><style>{STYLE}</style>' + (
        "\n".join(body) + "</html>\n"
    )


def _cells(kind: str, row: Row) -> str:
    return "<tr>" + "".join(f"<{kind}>{html.escape(cell)}</{kind}>" for cell in row) + "</tr>"


def _plot(bars: Sequence[tuple[str, float]]) -> str:
    """Bars from 0 to 1 with their names and values, as SVG."""
    drawn = [f'<svg viewBox="0 0 {WIDTH + 60} {HEIGHT * len(bars)}" width="{WIDTH + 60}" role="img">']
    for number, (name, value) in enumerate(bars):
        top, length = HEIGHT * number, (WIDTH - LABEL) * max(0.0, min(value, 1.0))
        drawn.append(
            f'<text x="0" y="{top + 15}">{html.escape(name)}</text>'
            f'<rect x="{LABEL}" y="{top + 3}" width="{length:.1f}" height="{HEIGHT - 6}"/>'
            f'<text x="{LABEL + length + 6:.1f}" y="{top + 15}">{value:.0%}</text>'
        )
    return "".join(drawn) + "</svg>"
