"""How a result prints: a few lines that say what it is, and never its arrays."""

from __future__ import annotations

import dataclasses
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

WIDTH = 110
"""Most letters of a line."""
MOST = 4
"""Most entries of a list or a mapping that are printed."""
LONGEST = 90
"""Most letters of a single value."""


class Brief:
    """A dataclass that prints its fields in a few lines. Arrays are printed as their type, shape and range, and empty fields not at all.

    The dataclass itself is declared with `repr=False`.
    """

    def __repr__(self) -> str:
        values = {each.name: getattr(self, each.name) for each in dataclasses.fields(self) if each.repr}  # type: ignore[arg-type]
        return brief_text(type(self).__name__, {name: value for name, value in values.items() if not _is_empty(value)})


def brief_text(name: str, values: Mapping[str, Any]) -> str:
    """Returns `Name(field=value, ...)`, wrapped over as many lines as needed.

    >>> brief_text("Curve", {"value": np.array([0.0, 0.5, 1.0, np.nan], np.float32)})
    'Curve(value=<float32 (4,), 0..1, 1 NaN>)'
    """
    text = ", ".join(f"{field}={brief(value)}" for field, value in values.items())
    if len(text) + len(name) + 2 <= WIDTH:
        return f"{name}({text})"
    lines = textwrap.wrap(text, WIDTH - 4, break_long_words=False, break_on_hyphens=False)
    return "\n".join([f"{name}(", *(f"    {line}" for line in lines), ")"])


def brief(value: Any) -> str:
    """Returns a value on one line: arrays by type, shape and range; lists and mappings by their first entries."""
    if isinstance(value, np.ndarray):
        return _array(value)
    if isinstance(value, Mapping):
        text = f"{{{', '.join(f'{key!r}: {brief(each)}' for key, each in list(value.items())[:MOST])}{_rest(value)}}}"
        return text if len(text) <= LONGEST else _shortened(f"<{len(value)} by {_kind(list(value))}: {', '.join(map(str, value))}>")
    if isinstance(value, list | tuple):
        text = f"[{', '.join(map(brief, value[:MOST]))}{_rest(value)}]"
        return text if len(text) <= LONGEST else f"<{len(value)} {_kind(value)}>"
    return _shortened(f"{value:.6g}" if isinstance(value, float) else " ".join(repr(value).split()))


def _array(values: np.ndarray) -> str:
    shape = f"<{values.dtype} {values.shape}"
    if values.dtype.kind not in "iuf" or not values.size or np.isnan(values).all():
        return f"{shape}{', all NaN' if values.size and values.dtype.kind == 'f' else ''}>"
    unknown = int(np.isnan(values).sum())
    return f"{shape}, {np.nanmin(values):.4g}..{np.nanmax(values):.4g}{f', {unknown} NaN' if unknown else ''}>"


def _rest(values: Mapping[Any, Any] | Sequence[Any]) -> str:
    return f", ... {len(values)} in all" if len(values) > MOST else ""


def _kind(values: Sequence[Any]) -> str:
    return type(values[0]).__name__


def _shortened(text: str) -> str:
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 4]}...{text[-1]}"


def _is_empty(value: Any) -> bool:
    return value is None or (isinstance(value, str | list | tuple | dict) and not value)
