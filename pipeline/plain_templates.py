"""Templates of text that is not HTML: pages in Markdown, and shell scripts."""

from typing import Any


def rendered(package: str, folder: str, template: str, /, **values: Any) -> str:
    """`template` of a package's folder with `values`, which come escaped, or quoted, where they are not ours."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader(package, folder), undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True,
        keep_trailing_newline=True, autoescape=False,
    )
    return environment.get_template(template).render(**values)
