"""What an audit computed, and its verdicts in words."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from milepost.core import Brief, json_value
from milepost.metrics import CONTROLS, VERDICTS, Audit, EpisodeCurves


@dataclass(frozen=True, eq=False, repr=False)
class AuditRun(Brief):
    """What an audit computed. audit: the verdicts. curves: every curve, by episode. clocks: the channels of the state that tell the time.

    unreadable: episodes that were left out, and why. beside: the same for other models, such as the clock. refused: episode index ->
    control -> why the model says nothing of that copy.
    """

    audit: Audit
    curves: tuple[EpisodeCurves, ...]
    clocks: tuple[int, ...] = ()
    unreadable: Mapping[int, str] = field(default_factory=dict)
    beside: Mapping[str, Audit] = field(default_factory=dict)
    refused: Mapping[int, Mapping[str, str]] = field(default_factory=dict)

    def partial(self) -> dict[str, int]:
        """Returns control -> how many episodes have it, for those that some episodes lack, such as a copy that the model refuses."""
        counts = {name: sum(name in each.controls for each in self.curves) for name in CONTROLS}
        return {name: count for name, count in counts.items() if 0 < count < len(self.curves)}

    def to_dict(self) -> dict[str, Any]:
        """Returns verdicts, properties and rows in JSON's types, as `audit.json` has them: an unknown number is None. The curves are not
        among them."""
        values = {
            **_plain(self.audit),
            "episodes": [each.episode for each in self.curves],
            "clocks": self.clocks,
            "beside": {name: _plain(audit) for name, audit in self.beside.items()},
            "unreadable": self.unreadable,
            "refused": self.refused,
        }
        return {name: json_value(value) for name, value in values.items()}


def _plain(audit: Audit) -> dict[str, Any]:
    rows = {name: dataclasses.asdict(row) for name, row in audit.rows.items()}
    properties = [dataclasses.asdict(each) for each in audit.properties]
    tasks = {task: dataclasses.asdict(rise) for task, rise in audit.tasks.items()}
    return {
        "verdict": audit.verdict, "reason": audit.reason, "properties": properties, "rows": rows, "tasks": tasks, "missing": audit.missing,
    }  # fmt: skip


def verdict_in_words(verdict: str, reason: str = "") -> str:
    """Returns what a verdict means, and why it was reached, if that is known.

    >>> verdict_in_words("clock", "frozen frames keep all of its rise")
    'it rises with time, whatever is seen (frozen frames keep all of its rise)'
    """
    return VERDICTS[verdict] + (f" ({reason})" if reason else "")
