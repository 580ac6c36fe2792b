"""What `milepost audit` found: written to a folder (verdict, properties, numbers, the figure), and read from there for the review page."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from milepost.core import FORM_VERSION, DataError, atomic_path, count_noun, plain_reason, read_bytes, read_json_object, to_json, write_text
from milepost.datasets import LeRobotDataset, is_dataset
from milepost.figures.audit import audit_figure
from milepost.figures.formats import FORMATS, Format
from milepost.figures.report import Section, report_fragment
from milepost.figures.style import figure_bytes
from milepost.metrics import ROWS, Estimate
from milepost.progress import AuditRun, require_made_for, verdict_in_words

MARKS = {"passes": "yes", "fails": "no", "cannot be said": "?"}
LARGEST = 32 << 20
"""Largest figure in bytes."""


def write_audit(
    run: AuditRun,
    folder: Path | str,
    dataset: LeRobotDataset,
    *,
    model: str,
    taught: Collection[int] = (),
    kind: Format = "png",
) -> dict[str, object]:
    """Writes `audit.json` and the figure, which `view --audit` and `export_page(audit=...)` show, and returns what is in the file.

    model: its name. taught: the audited episodes that it learnt from, which flatter it. kind: the figure's format. DataError if the folder
    has the audit of another model or dataset.
    """
    folder = Path(folder)
    about = {"model": model, "dataset": dataset.name, "dataset_fingerprint": dataset.fingerprint}
    require_own_audit(folder, about)
    folder.mkdir(parents=True, exist_ok=True)
    record = {"format": FORM_VERSION, **about, **run.to_dict(), "taught": sorted(taught)}
    write_text(folder / "audit.json", to_json(record) + "\n")
    title = f"{model} on {dataset.name}\nverdict: {run.audit.verdict}"
    image = figure_bytes(audit_figure(run.curves, title=title, rows=run.audit.rows), kind)
    for other in FORMATS:
        (folder / f"audit.{other}").unlink(missing_ok=True)
    with atomic_path(folder / f"audit.{kind}") as path:
        path.write_bytes(image)
    return record


def require_own_audit(folder: Path, about: Mapping[str, str]) -> None:
    """Raises DataError if an audit may not be written to a folder: it is of another model or dataset there, or the folder is a dataset's.

    A file that another program wrote, or that is damaged, is not replaced either. about: "model" and "dataset", by name.
    """
    place = folder.expanduser().resolve()
    if place.exists() and not place.is_dir():
        raise DataError(f"{folder} is a file, and the audit is written to a folder; choose another one (--output-dir)")
    if root := next((each for each in (place, *place.parents) if is_dataset(each)), None):
        what = "is a dataset" if root == place else f"lies in the dataset {root}"
        raise DataError(f"{folder} {what}, into which no audit is written; choose another folder (--output-dir)")
    path = folder / "audit.json"
    if not path.is_file():
        return
    try:
        there = read_json_object(path, what="audit")
    except DataError as error:
        raise DataError(f"{error}, so it is not replaced; remove it, or choose another folder (--output-dir)") from error
    if missing := [name for name in ("model", "dataset", "verdict") if not isinstance(there.get(name), str)]:
        raise DataError(
            f"{path} is not what milepost audit writes (it has no {missing[0]}), so it is not replaced; remove it, or choose another "
            "folder (--output-dir)"
        )
    for name in ("model", "dataset"):
        if there[name] != about[name]:
            whose = f"{there['model']} on {there['dataset']}"
            raise DataError(f"{folder} has the audit of {whose}; choose another folder (--output-dir), or remove it first")


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
        raise DataError(
            f"{path} is not what this version of milepost audit writes ({plain_reason(error)}); run milepost audit again"
        ) from error


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
            "Curves", "The mean of the episodes as recorded (grey, wide) and edited (brown), one panel a control.", images=figure
        ) if figure else Section("Curves", "The figure is not shown: the audit's folder has no audit.png, which --format png writes."),
        Section("Numbers", f"Intervals of 95 % over {count_noun(len(episodes), 'episode')}.", columns=("", *audits), rows=numbers),
    ]  # fmt: skip
    facts = [("model", str(record["model"])), ("dataset", dataset), ("episodes", ", ".join(map(str, episodes)))]
    facts += [(name, str(each["verdict"])) for name, each in record["beside"].items()]
    if taught := record.get("taught"):
        facts += [("flattered", f"the model learnt from {len(taught)} of these {count_noun(len(episodes), 'episode')}")]
    words = verdict_in_words(verdict, str(record.get("reason", "")))
    return report_fragment(title=f"Audit: {verdict}", lead=f"{record['model']}: {words}.", facts=facts, sections=sections)


def _estimate(row: Mapping[str, Any] | None) -> str:
    """Returns a number with its interval as the command prints it; JSON has null for what is unknown."""
    if row is None or row["value"] is None:
        return "-"
    value, low, high = (float("nan") if row[name] is None else float(row[name]) for name in ("value", "low", "high"))
    return str(Estimate(value, low, high, int(row["episodes"])))
