"""Settings told to people: help tables and resolved recipes, both from the definitions in `pipeline.settings`."""

import functools
import json
from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel

from pipeline.recipe import Recipe

Rows = list[tuple[str, str]]
_BOUNDS = {"minimum": ">=", "exclusiveMinimum": ">", "maximum": "<=", "exclusiveMaximum": "<"}


def settings_of(section: str, only: tuple[str, ...] | None = None) -> Rows:
    """(name and type, meaning and default) of every setting of a recipe section; `only` keeps those named."""
    return _rows(_schema(), _schema()["properties"][section], only)


def phase_settings(section: str) -> Rows:
    """The same for one entry of `phases`; empty for sections that have none."""
    schema = _schema()
    phases = _resolve(schema, schema["properties"][section])["properties"].get("phases")
    return _rows(schema, phases["items"], None) if phases else []


def sections() -> dict[str, str]:
    """Every section of a recipe and what it is about."""
    found = {}
    for name, field in Recipe.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            found[name] = (field.annotation.__doc__ or "").strip()
    return found


def recipe_toml(recipe: Recipe) -> str:
    """`recipe` as a TOML file with every setting resolved; reading it gives an equal recipe."""
    return "\n".join(_toml(recipe.model_dump(mode="json"), ())) + "\n"


@functools.cache
def _schema() -> dict[str, Any]:
    return Recipe.model_json_schema()


def _resolve(schema: dict[str, Any], node: dict[str, Any]) -> dict[str, Any]:
    reference = node.get("$ref")
    return schema["$defs"][reference.rsplit("/", 1)[-1]] if reference else node


def _rows(schema: dict[str, Any], node: dict[str, Any], only: tuple[str, ...] | None) -> Rows:
    section = _resolve(schema, node)
    required = section.get("required", [])
    rows = []
    for name, field in section["properties"].items():
        if only is None or name in only:
            default = "required" if name in required else f"default {_default(name, field.get('default'))}"
            rows.append((f"{name}  {_type(schema, field)}", f"{field['description']} [{default}]"))
    return rows


def _default(name: str, value: Any) -> str:
    if name == "phases":
        return "; ".join(phase["name"] for phase in value)
    return "none" if value is None else value if isinstance(value, str) else json.dumps(value)


def _type(schema: dict[str, Any], field: dict[str, Any]) -> str:
    """The type of a setting in TOML terms, with its bounds: `float >= 0`, `word|subword|char`."""
    field = _resolve(schema, field)
    if "anyOf" in field:
        return " or ".join(_type(schema, option) for option in field["anyOf"])
    if "enum" in field:
        return "|".join(field["enum"])
    if field["type"] == "array":
        inner = [_type(schema, i) for i in field["prefixItems"]] if "prefixItems" in field else [
            _type(schema, field["items"]), "..."]
        return f"[{', '.join(inner)}]"
    names = {"integer": "int", "number": "float", "boolean": "true|false", "string": "text", "null": "none",
             "object": "table"}
    bounds = [f"{sign} {_bound(field[key])}" for key, sign in _BOUNDS.items() if key in field]
    return " ".join([names[field["type"]], ", ".join(bounds)]).strip()


def _bound(value: float) -> str:
    return str(value) if isinstance(value, int) else f"{value:g}"


def _toml(table: dict[str, Any], path: tuple[str, ...]) -> Iterator[str]:
    for key, value in table.items():
        if not _is_table(value):
            yield f"{_key(key)} = {_value('none' if value is None else value)}"
    for key, value in table.items():
        if not _is_table(value):
            continue
        name = ".".join(map(_key, (*path, key)))
        for entry in value if isinstance(value, list) else [value]:
            yield ""
            yield f"[[{name}]]" if isinstance(value, list) else f"[{name}]"
            yield from _toml(entry, (*path, key))


def _is_table(value: Any) -> bool:
    return isinstance(value, dict) or (isinstance(value, list) and bool(value) and isinstance(value[0], dict))


def _key(key: str) -> str:
    return key if key.replace("-", "").replace("_", "").isalnum() and key.isascii() else json.dumps(key)


def _value(value: Any) -> str:
    return f"[{', '.join(map(_value, value))}]" if isinstance(value, list) else json.dumps(value, ensure_ascii=False)
