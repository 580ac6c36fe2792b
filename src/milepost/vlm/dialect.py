"""What one "OpenAI-compatible" server does not take. A field that its error names is left out, or sent under its newer name, from then on.

Only fields of ours whose absence leaves the answer one of the same kind: never the question, never what is read (log-probabilities), never
what the caller put in by hand (`extra_body`). What was left out is said.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from milepost.vlm.transport import RefusedError

RENAMED = {"max_tokens": "max_completion_tokens"}
LEFT_OUT = ("temperature", "seed", "max_completion_tokens", "max_tokens")
STATUSES = (200, 400, 404, 415, 422, 500, 501)
"""With which servers refuse a field; 200: an error in the body without a status of its own."""
_A_VALUE = re.compile(r"too large|too high|at most|less than|maximum|exceed", re.IGNORECASE)
"""The field is taken, but not so much of it: leaving it out would ask for more."""


class Dialect:
    """What is known of one server so far. by_hand: fields that are sent whatever it says."""

    def __init__(self, fixed_fields: Mapping[str, Any]) -> None:
        self._fixed_fields = frozenset(fixed_fields)
        self._renamed: dict[str, str] = {}
        self._refused: dict[str, None] = {}

    def __str__(self) -> str:
        """For a person: what the server was not sent, empty if it takes everything."""
        renamed = [f"'{new}' instead of '{old}'" for old, new in self._renamed.items() if new not in self._refused]
        without = [f"without '{name}'" for name in self._refused if name not in self._renamed.values()]
        without += [f"without '{old}'" for old, new in self._renamed.items() if new in self._refused]
        return ", ".join([*without, *renamed])

    def translate(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """The request as this server takes it; what is None is not sent."""
        fields = {self._renamed.get(name, name): value for name, value in body.items()}
        return {name: value for name, value in fields.items() if value is not None and name not in self._refused}

    def learn(self, error: RefusedError, request: Mapping[str, Any]) -> bool:
        """Takes note of what the error refuses of the request it answers; False if there is nothing in it that can be left out."""
        if error.status not in STATUSES or error.too_long:
            return False
        names = [
            name
            for name in request
            if name not in self._fixed_fields and (name in LEFT_OUT or name in RENAMED) and _blames(error, name, request)
        ]
        for name in names:
            if name in RENAMED:
                self._renamed[name] = RENAMED[name]
            else:
                self._refused[name] = None
        return bool(names)


def _blames(error: RefusedError, name: str, request: Mapping[str, Any]) -> bool:
    if name.startswith("max_") and _A_VALUE.search(error.words):
        return False
    blamed = set(re.findall(r"\w+", error.param)) & set(request)
    return name in blamed if blamed else re.search(rf"(?<!\w){name}(?!\w)", error.words) is not None
