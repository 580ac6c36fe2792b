"""Writes what docs/file_formats.md shows of each file, and the schemas of models' configs: `python tools/file_formats.py`.

The schemas in src/milepost/core/schemas/ say everything once. Those of configs come from the dataclasses; the others are written by hand,
and a test compares them with files that the verbs wrote. The text of the page around the tables is written by hand too.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

import milepost

ROOT = Path(__file__).resolve().parents[1]
SCHEMAS = ROOT / "src" / "milepost" / "core" / "schemas"
PAGE = ROOT / "docs" / "file_formats.md"
CONFIGS = {
    "sarm": milepost.SARMConfig,
    "value": milepost.ValueConfig,
    "success": milepost.SuccessConfig,
    "topreward": milepost.TOPRewardConfig,
    "roboreward": milepost.RoboRewardConfig,
    "robometer": milepost.RobometerConfig,
    "gvl": milepost.GVLConfig,
    "rabc": milepost.RabcConfig,
}
"""The name in the schema's file -> the dataclass that it comes from."""


def config_schema(name: str) -> str:
    """Returns the JSON Schema of a config, as text."""
    schema = TypeAdapter(CONFIGS[name]).json_schema()
    schema.pop("description", None)  # the docstring, which is on the page of the Python names
    return json.dumps({"$schema": "https://json-schema.org/draft/2020-12/schema", "version": 1, **schema}, indent=1, sort_keys=True) + "\n"


def kind(schema: dict[str, Any]) -> str:
    """Returns the type of a JSON value in words.

    >>> kind({"type": ["number", "null"]})
    'number or null'
    """
    if "const" in schema:
        return f"`{schema['const']}`"
    types = schema["type"] if isinstance(schema["type"], list) else [schema["type"]]
    return " or ".join(
        f"{name} of {kind(schema['items'])}" if name == "array" and "type" in schema.get("items", {}) else name for name in types
    )


def rows(schema: dict[str, Any]) -> list[str]:
    """Returns a schema as the rows of a table."""
    if schema.get("type") == "array":
        return ["It is an array. Each entry has:", "", *rows(schema["items"])]
    if "columns" not in schema:
        cells = [(f"`{name}`", kind(each), each["description"], name in schema["required"]) for name, each in schema["properties"].items()]
        if "description" in (rest := schema.get("additionalProperties") or {}):
            cells.append(("any other", kind(rest), rest["description"], True))
        made = [f"| {name} | {what} | {text}{'' if always else ' Optional.'} |" for name, what, text, always in cells]
        return ["| key | type | meaning |", "|---|---|---|", *made]
    head = ["| column | type | unit | meaning |", "|---|---|---|---|"]
    for each in schema["columns"]:
        name = each.get("name") or each["pattern"].replace("|", "\\|")
        text = each["description"] + (" Optional." if each.get("optional") else "")
        head.append(f"| `{name}` | {each['type']} | {each['unit']} | {text} |")
    return [*head, "", "In the metadata of the file:", "", *(f"- `{key}`: {text}" for key, text in schema["metadata"].items())]


def section(name: str) -> str:
    """Returns what the page shows of one schema."""
    schema = json.loads((SCHEMAS / f"{name}.json").read_text())
    about = f"File: `{schema['file']}`. Written by: {schema['written_by']}. Read by: {schema['read_by']}. Schema: `{name}.json`."
    return "\n".join([about, "", *rows(schema)])


def page(text: str) -> str:
    """Returns the page with each block between `<!-- NAME -->` and `<!-- end -->` renewed."""
    return re.sub(
        r"<!-- (\w+) -->\n.*?<!-- end -->", lambda at: f"<!-- {at[1]} -->\n\n{section(at[1])}\n\n<!-- end -->", text, flags=re.DOTALL
    )


def main() -> None:
    """Writes the schemas of configs, and the page."""
    for name in CONFIGS:
        (SCHEMAS / f"config_{name}.json").write_text(config_schema(name))
    PAGE.write_text(page(PAGE.read_text()))


if __name__ == "__main__":
    main()
