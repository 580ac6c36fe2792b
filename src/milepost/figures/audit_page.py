"""What `milepost audit` found, for the review page: verdict, properties, numbers, the figure. Read from the folder that the audit wrote."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from milepost.core import DataError, count_noun, read_bytes, read_json_object
from milepost.datasets import LeRobotDataset
from milepost.figures.report import Section, report_fragment
from milepost.metrics import ROWS, VERDICTS, Estimate
from milepost.progress import require_made_for

MARKS = {"passes": "yes", "fails": "no", "cannot be said": "?"}
LARGEST = 32 << 20
"""Largest figure in bytes."""


def audit_report(folder: Path | str, dataset: LeRobotDataset) -> tuple[str, tuple[str, ...]]:
    """Returns an HTML fragment for the review page, and warnings. folder: has `audit.json`, and `audit.png` if the figure is shown.

    DataError if there is no audit, or it is of another dataset.
    """
    path = Path(folder) / "audit.json"
    record = read_json_object(path, what="audit")
    try:
        warnings = require_made_for(path, {name: str(record[name]) for name in ("dataset", "dataset_fingerprint")}, dataset)
        return _fragment(record, dataset.name, _figure(path.parent)), warnings
    except (KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{path} is not what this version of milepost audit writes ({error!r}); run milepost audit again") from error


def _figure(folder: Path) -> tuple[bytes, ...]:
    path = folder / "audit.png"
    return (read_bytes(path, what="figure", limit=LARGEST),) if path.is_file() else ()


def _fragment(record: Mapping[str, Any], dataset: str, figure: tuple[bytes, ...]) -> str:
    audits = {"model": record, **record["beside"]}
    verdict = record["verdict"]
    episodes = record["episodes"]
    properties = [(MARKS[each["state"]], each["name"], each["evidence"]) for each in record["properties"]]
    numbers = [(words, *(_estimate(each["rows"].get(row)) for each in audits.values())) for row, words in ROWS.items()]
    sections = [
        Section("What it does", columns=("", "property", "evidence"), rows=properties, sentences=True),
        Section(
            "Curves", "The mean of the successful episodes as recorded (grey) and edited, one panel a control.", images=figure
        ) if figure else Section("Curves", "The figure is not shown: the audit's folder has no audit.png, which --format png writes."),
        Section("Numbers", f"Intervals of 95 % over {count_noun(len(episodes), 'episode')}.", columns=("", *audits), rows=numbers),
    ]  # fmt: skip
    facts = [("model", str(record["model"])), ("dataset", dataset), ("episodes", ", ".join(map(str, episodes)))]
    facts += [(name, str(each["verdict"])) for name, each in record["beside"].items()]
    return report_fragment(title=f"Audit: {verdict}", lead=f"{record['model']}: {VERDICTS[verdict]}.", facts=facts, sections=sections)


def _estimate(row: Mapping[str, Any] | None) -> str:
    """Returns a number with its interval as the command prints it; JSON has null for what is unknown."""
    if row is None or row["value"] is None:
        return "-"
    value, low, high = (float("nan") if row[name] is None else float(row[name]) for name in ("value", "low", "high"))
    return str(Estimate(value, low, high, int(row["episodes"])))
