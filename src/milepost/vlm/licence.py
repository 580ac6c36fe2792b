"""The licence of published weights, as the card or the config beside them has it: one that forbids commercial use is said once.

A folder that names none, such as a user's own, has no licence that is said.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from milepost.core import warn_user

FIELD = re.compile(r"^license(?:_name)?:[ \t]*[\"']?([^\s\"'#]+)", re.MULTILINE)
FORBIDS = re.compile(r"(?:^|[-_])nc(?:$|[-_])|non-?commercial|research(?:$|-only|-licen[cs]e)|^apple-amlr$", re.IGNORECASE)
"""Names of licences that forbid commercial use: cc-by-nc-4.0, fair-noncommercial-research-license, qwen-research and the like."""
_WARNED_OF: set[tuple[str, str]] = set()


def say_licence(name: str, card: Path | None, config: Mapping[str, Any]) -> None:
    """Warns, once in a process for each checkpoint, if the card or the config.json of its weights names a licence that forbids commercial
    use.
    """
    written = config.get("license")
    licences = {
        "README.md": forbidding_licence(card),
        "config.json": written if isinstance(written, str) and FORBIDS.search(written) else "",
    }
    place, licence = next(((place, licence) for place, licence in licences.items() if licence), ("", ""))
    if licence and (name, licence) not in _WARNED_OF:
        _WARNED_OF.add((name, licence))
        where = "has its terms" if place == "README.md" else "names it"
        warn_user(f"the weights of {name} are under the licence '{licence}', which forbids commercial use; their {place} {where}")


def forbidding_licence(card: Path | None) -> str:
    """Returns the licence that a model card names in its first lines, if it forbids commercial use; else ""."""
    if card is None or not card.is_file():
        return ""
    text = card.read_text(encoding="utf-8", errors="replace")
    front = text.split("\n---", 1)[0] if text.startswith("---") else ""
    return next((licence for licence in FIELD.findall(front) if FORBIDS.search(licence)), "")
