"""Records in a copy which dataset it was made from, so that files of the source's rows are known to be of the copy's rows too.

A copy has other bytes than its source, and so another fingerprint. The record names the copy's own fingerprint: if somebody changes the
copy's frames later, the two differ, and nothing is concluded from the record any more.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from milepost.core import DataError, read_json_object, to_json
from milepost.datasets.reader import LeRobotDataset, open_dataset

ORIGIN = "meta/milepost_copy.json"


@dataclass(frozen=True)
class Origin:
    """The datasets that a copy was made from, by fingerprint.

    same_rows: those with the very rows of the copy, in their order. part_of: those of which rows were left out.
    """

    same_rows: tuple[str, ...] = ()
    part_of: tuple[str, ...] = ()


def origin_of(dataset: LeRobotDataset) -> Origin:
    """Returns what a dataset was copied from; nothing if it is no copy of milepost's, or its frames were changed since.

    DataError if the record is damaged.
    """
    path = dataset.root / ORIGIN
    if not path.is_file():
        return Origin()
    record = read_json_object(path, what="record of a copy")
    same_rows, part_of = (_fingerprints(path, record.get(name)) for name in ("same_rows", "part_of"))
    return Origin(same_rows, part_of) if record.get("fingerprint") == dataset.fingerprint else Origin()


def _fingerprints(path: Path, values: Any) -> tuple[str, ...]:
    """Returns a side of the record. DataError if it is no list of fingerprints."""
    if not isinstance(values, list) or not all(isinstance(each, str) for each in values):
        raise DataError(f"{path} is not what milepost copy writes: remove it, and label the copy with milepost label")
    return tuple(values)


def has_rows_of(dataset: LeRobotDataset, fingerprint: str) -> bool:
    """Tells whether the dataset of this fingerprint has the very rows of this one: it is this one, or one that this was copied from."""
    return fingerprint == dataset.fingerprint or fingerprint in origin_of(dataset).same_rows


def record_origin(part: Path, source: LeRobotDataset, *, is_part: bool) -> None:
    """Writes into the finished copy in `part` what it was made from. is_part: whether rows of the source are left out."""
    before, own = origin_of(source), open_dataset(part).fingerprint
    alike = [source.fingerprint, *before.same_rows]
    same_rows, part_of = ([], [*alike, *before.part_of]) if is_part else (alike, [*before.part_of])
    (part / ORIGIN).unlink(missing_ok=True)  # it may be a link
    record = {"fingerprint": own, "same_rows": same_rows, "part_of": part_of}
    (part / ORIGIN).write_text(to_json(record) + "\n", encoding="utf-8")
