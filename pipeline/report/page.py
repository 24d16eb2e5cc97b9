"""The `report` command: one self-contained HTML page of a run, a Markdown twin, and the figures both show as JSON.

Every figure is looked up in a sealed JSON document or in report.json, and the HTML names its place (`data-from`).
"""

import json
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from pipeline import __version__
from pipeline.protocol import protocol_of
from pipeline.report import making_of, results
from pipeline.report.blocks import Block, Hero, Line, Note, Page, Section
from pipeline.report.evaluation_page import escape
from pipeline.report.gather import DERIVED, METRICS, Material, gather
from pipeline.stage import Run
from pipeline.storage import write_durably

HTML, MARKDOWN = "report.html", "report.md"


def write_report(run: Run, folder: Path) -> Path:
    """Write report.html, report.md and report.json into `folder`; the path of the page.

    Raises InputError if the run has nothing sealed, or something damaged.
    """
    material = gather(run)
    page = compose(material)
    folder.mkdir(parents=True, exist_ok=True)
    write_durably(folder / HTML, render_html(page))
    write_durably(folder / MARKDOWN, render_markdown(page))
    # Last, since it says that the report is there.
    derived = material.sources.documents[DERIVED]
    write_durably(folder / DERIVED, json.dumps(derived, ensure_ascii=False, indent=2) + "\n")
    return folder / HTML


def compose(material: Material) -> Page:
    """What the report of a run says."""
    sources, run = material.sources, material.run
    derived = sources.documents[DERIVED]
    return Page(
        title=f"Report of run {run.name}",
        chips=list(_chips(material)),
        top=list(_top(material)),
        sections=list(_sections(material, derived)),
        footer=[
            f"Written by staged-ulmfit {__version__} from sealed artifacts. The same again: ",
            f"python -m pipeline report --run {run.name}",
        ],
    )


def _top(material: Material) -> Iterator[Block]:
    sources = material.sources
    if METRICS in sources:
        yield from results.headline(sources)
    elif "lm/manifest.json" in sources:
        yield Hero(
            "Perplexity on validation", sources.figure("lm/manifest.json", "metrics", "perplexity", form="fixed2"),
            ["This run has no evaluation yet."],
        )
    else:
        yield Note(["This run has no model yet."])


def _sections(material: Material, derived: dict[str, Any]) -> Iterator[Section]:
    sources = material.sources
    if METRICS in sources:
        yield results.comparison(sources)
        yield results.classes(sources)
        yield results.calibration(sources)
        if derived.get("by_length"):
            yield results.length(sources)
        if "mistakes" in derived:
            yield results.mistakes(sources)
    for role in [link.role for link in material.chain]:
        if f"{role}/history.jsonl" in sources:
            yield making_of.training(material, role)
    yield making_of.data(material)
    yield making_of.lineage(material)


def _chips(material: Material) -> Iterator[Line]:
    sources = material.sources
    read = (sources.get(METRICS, "protocol") or {}, sources.get("lm/manifest.json", "metrics") or {})
    if any(protocol_of(each) == "published" for each in read):
        yield ["published protocol"]
    for role in ("classifier", "lm"):
        source = material.manifest(role)
        if source in sources:
            yield [{"fwd": "reads forwards", "bwd": "reads backwards"}[sources.get(source, "identity", "direction")]]
            if sources.get(source, "device") is not None:
                yield [sources.figure(source, "precision", "effective"), " on ", sources.figure(source, "device")]
            break
    if "tokens/manifest.json" in sources:
        yield [sources.figure("tokens/manifest.json", "metrics", "tokenizer"), " tokens"]


def render_html(page: Page) -> str:
    """The page as HTML: one file, no script, nothing loaded from anywhere."""
    return environment("html").get_template("report.html").render(page=page)


def render_markdown(page: Page) -> str:
    """The same figures as Markdown; charts are named, not drawn."""
    text = environment("markdown").get_template("report.md").render(page=page)
    lines = [line.rstrip() for line in text.splitlines()]
    kept = [line for line, before in zip(lines, ["", *lines], strict=False) if line or before]
    return "\n".join(kept).strip() + "\n"


@cache
def environment(kind: str) -> Environment:
    """Templates whose every expression is escaped for `kind`; only Markup passes as it is."""
    return Environment(
        loader=PackageLoader("pipeline.report"), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True, finalize=_clean if kind == "html" else _as_markdown,
    )


def _clean(value: Any) -> Any:
    """Text without characters that cannot be seen: controls, and marks that turn the reading direction."""
    if isinstance(value, str) and not isinstance(value, Markup):
        return "".join(c if c.isprintable() else " " for c in value)
    return value


def _as_markdown(value: Any) -> Any:
    if isinstance(value, str) and not isinstance(value, Markup):
        return Markup(escape(value))  # escaped for Markdown, where HTML's entities are not wanted
    return value
