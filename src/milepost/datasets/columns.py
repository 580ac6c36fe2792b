"""Compares a data file's columns with info.json: their names, types and numbers a frame. It reads footers only."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import pyarrow as pa

from milepost.core import shown
from milepost.datasets.features import width
from milepost.datasets.findings import Severity

ROWS = ("episode_index", "frame_index", "index", "timestamp", "task_index")
"""LeRobot's own columns of every frame."""


def check_columns(schema: pa.Schema, features: Mapping[str, Mapping[str, Any]], *, strict: bool) -> Iterator[tuple[str, Severity, str]]:
    """Yields (code, severity, what is wrong) for one file. strict: LeRobot v3 opens no dataset whose columns are not those of info.json."""
    names = set(schema.names)
    expected = {name for name, feature in features.items() if feature.get("dtype") != "video"}
    must: Severity = "error" if strict else "warning"
    if missing := sorted(expected - names):
        yield "columns", "error", f"lacks the columns {_names(missing)}, which info.json lists"
    if missing := sorted(set(ROWS) - names - expected):
        is_derivable = set(missing) <= {"frame_index", "index"}
        yield (
            "columns",
            must if is_derivable else "error",
            f"lacks the columns {_names(missing)}" + ("; rows are counted by their order" if is_derivable else ""),
        )
    if extra := sorted(names - expected - set(ROWS)):
        yield "columns", must, f"has columns that info.json does not list: {_names(extra)}"
    for name in sorted(names & expected):
        fault = column_fault(features[name], schema.field(name).type)
        if fault is not None:
            severity, words = fault
            yield "column-types", severity if strict else "warning", f"has the column '{name}' as {words}"


def column_fault(feature: Mapping[str, Any], kind: pa.DataType) -> tuple[Severity, str] | None:
    """Returns how an Arrow type differs from a feature: an error where LeRobot could not take one for the other. None: it does not."""
    dtype, count = str(feature.get("dtype")), width(feature)
    if dtype == "image":
        return None if _holds_images(kind) else ("error", f"{kind}, info.json says pictures")
    scalar, depth, numbers = kind, 0, 1
    while _is_list(scalar):
        numbers = numbers * scalar.list_size if pa.types.is_fixed_size_list(scalar) and numbers else 0
        scalar, depth = scalar.value_type, depth + 1
    family = _family(dtype)
    if family is None:
        return None
    if _kind(scalar) is None or (family == "text") != (_kind(scalar) == "text"):
        return "error", f"{shown(str(kind)).strip(QUOTE)}, info.json says {dtype}"
    if count is not None and family != "text":
        if count == 1 and depth and len(feature.get("shape") or ()) == 1:
            return "error", "lists, info.json says one number a frame"
        if count != 1 and not depth:
            return "error", f"one number a frame, info.json says {count}"
        if depth and numbers not in (0, count):
            return "error", f"{numbers} numbers a frame, info.json says {count}"
    actual = {"float": "float32", "double": "float64", "halffloat": "float16"}.get(str(scalar), str(scalar))
    return ("warning", f"{actual}, info.json says {dtype}") if family != "text" and actual != dtype else None


QUOTE = "'"


def _family(dtype: str) -> str | None:
    if dtype in ("string", "large_string", "str"):
        return "text"
    return "number" if dtype == "bool" or dtype.rstrip("0123456789") in ("int", "uint", "float") else None


def _kind(kind: pa.DataType) -> str | None:
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        return "text"
    return "number" if pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind) else None


def _is_list(kind: pa.DataType) -> bool:
    return pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)


def _holds_images(kind: pa.DataType) -> bool:
    text = _kind(kind) == "text"
    return (
        text
        or pa.types.is_binary(kind)
        or pa.types.is_large_binary(kind)
        or _is_list(kind)
        or (pa.types.is_struct(kind) and kind.get_field_index("bytes") >= 0)
    )


def _names(names: list[str]) -> str:
    return ", ".join(shown(name, 60).strip(QUOTE) for name in names[:9]) + (f" and {len(names) - 9} more" if len(names) > 9 else "")
