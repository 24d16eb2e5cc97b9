"""Markdown pages of exported folders."""

from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined


def rendered(template: str, **values: Any) -> str:
    """`template` with `values`, which come escaped for Markdown where they are not ours."""
    environment = Environment(
        loader=PackageLoader("pipeline.export", "pages"), undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True, keep_trailing_newline=True, autoescape=False,
    )
    return environment.get_template(template).render(**values)
