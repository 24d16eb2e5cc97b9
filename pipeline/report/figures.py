"""Figures of a report, each with the place it comes from: no number on a page is typed in or worked out there."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from pipeline.progress import format_duration
from pipeline.report.summary import percent

FORMS: dict[str, Callable[[Any], str]] = {
    "plain": lambda value: value if isinstance(value, str) else json.dumps(value, ensure_ascii=False),
    "count": lambda value: f"{value:,}",
    "percent": percent,
    "share": lambda value: f"{100 * value:.3g} %",
    "fixed2": lambda value: f"{value:,.2f}",
    "fixed3": lambda value: f"{value:.3f}",
    "fixed4": lambda value: f"{value:.4f}",
    "signed": lambda value: f"{value:+.2f}",
    "general": lambda value: f"{value:.2g}",
    "rate": lambda value: f"{value:,.0f}",
    "duration": format_duration,
    "megabytes": lambda value: f"{value:,.0f} MB",
    "bytes": lambda value: f"{value:,} bytes",
    "time": lambda value: value[:16].replace("T", " "),
    "hash": lambda value: value[:12],
}


@dataclass(frozen=True)
class Figure:
    """One value of a JSON document, as it is shown."""

    source: str
    """Name of the document, such as evaluation/metrics.json."""
    pointer: str
    """Where in it (RFC 6901)."""
    value: Any
    text: str


class Sources:
    """The JSON documents that a report is made of, by name."""

    def __init__(self, documents: Mapping[str, Any]) -> None:
        self.documents = documents

    def __contains__(self, source: str) -> bool:
        return source in self.documents

    def get(self, source: str, *path: str | int) -> Any:
        """The value at `path`; None where there is no such document or value."""
        value: Any = self.documents.get(source)
        for step in path:
            if isinstance(value, dict):
                value = value.get(step)
            elif isinstance(value, list) and isinstance(step, int) and step < len(value):
                value = value[step]
            else:
                return None
        return value

    def figure(self, source: str, *path: str | int, form: str = "plain", absent: str = "n/a") -> Figure:
        """The value at `path`, written in one of FORMS; `absent` is what null, or no value, is called."""
        value = self.get(source, *path)
        pointer = "".join("/" + str(step).replace("~", "~0").replace("/", "~1") for step in path)
        return Figure(source, pointer, value, absent if value is None else FORMS[form](value))
