"""What one "OpenAI-compatible" server does not take. A field that its error names is left out, or sent under its newer name, from then on.

This is done only for fields of ours without which the answer stays one of the same kind. It is never done for the question, for what is
read (log-probabilities), or for what the caller set himself (`extra_body`). The user is told what was left out.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from milepost.vlm.transport import RefusedError

RENAMED = {"max_tokens": "max_completion_tokens"}
LEFT_OUT = ("temperature", "seed", "max_completion_tokens", "max_tokens")
STATUSES = (200, 400, 404, 415, 422, 500, 501)
"""Statuses with which servers refuse a field. 200 is an error in the body that has no status of its own."""
_A_VALUE = re.compile(r"too large|too high|at most|less than|maximum|exceed", re.IGNORECASE)
"""The server takes the field but not so large a value. Without the field it might compute more than was asked for."""


class Dialect:
    """What is known of one server so far. fixed_fields: fields that are sent whatever the server says."""

    def __init__(self, fixed_fields: Mapping[str, Any]) -> None:
        self._fixed_fields = frozenset(fixed_fields)
        self._renamed: dict[str, str] = {}
        self._refused: dict[str, None] = {}

    def __str__(self) -> str:
        """Returns, for a person, which fields the server was not sent; empty if it takes all of them."""
        renamed = [f"'{new}' instead of '{old}'" for old, new in self._renamed.items() if new not in self._refused]
        without = [f"without '{name}'" for name in self._refused if name not in self._renamed.values()]
        without += [f"without '{old}'" for old, new in self._renamed.items() if new in self._refused]
        return ", ".join([*without, *renamed])

    def translate(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """Returns the request as this server takes it. Fields that are None are not sent."""
        fields = {self._renamed.get(name, name): value for name, value in body.items()}
        return {name: value for name, value in fields.items() if value is not None and name not in self._refused}

    def learn(self, error: RefusedError, request: Mapping[str, Any]) -> bool:
        """Remembers which fields of the request the error refuses. Returns False if it names none that can be left out."""
        if error.status not in STATUSES or error.too_long:
            return False
        names = [
            name
            for name in request
            if name not in self._fixed_fields and (name in LEFT_OUT or name in RENAMED) and _blames(error, name, request)
        ]
        for name in names:
            if name in RENAMED:  # its newer name first: without the field there would be no limit of tokens
                self._renamed[name] = RENAMED[name]
            else:
                self._refused[name] = None
        return bool(names)


def _blames(error: RefusedError, name: str, request: Mapping[str, Any]) -> bool:
    if name.startswith("max_") and _A_VALUE.search(error.words):
        return False
    blamed = set(re.findall(r"\w+", error.param)) & set(request)
    return name in blamed if blamed else re.search(rf"(?<!\w){name}(?!\w)", error.words) is not None
