"""A person's opinion on each episode: keep, drop or unsure, and a note; one JSON file beside the dataset, on disk after every change.

A file of another dataset and a damaged file are refused, because they are somebody's work. The list can be downloaded as JSON or CSV, with
the LeRobot command that copies the dataset without the dropped episodes; nothing is deleted here.
"""

from __future__ import annotations

import csv
import io
import json
import shlex
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from milepost.core import FORM_VERSION, DataError, output_lock, plain_reason, plausible, read_json, require_format, shown, write_text
from milepost.datasets import LeRobotDataset

KINDS = ("keep", "drop", "unsure")
LONGEST = 4000
"""Longest note in letters."""
WAIT_S = 10.0
"""Longest wait in seconds for another server of the same file. It writes in milliseconds, so a longer wait means a fault."""


@dataclass(frozen=True)
class Mark:
    """kind: one of `KINDS`, or None if there is only a note."""

    kind: str | None
    note: str = ""

    def __post_init__(self) -> None:
        if self.kind is not None and self.kind not in KINDS:
            raise DataError(f"a mark is {', '.join(KINDS)} or none, got {shown(self.kind)}")
        if not isinstance(self.note, str) or len(self.note) > LONGEST or any("\ud800" <= letter <= "\udfff" for letter in self.note):
            raise DataError(f"a note is a text of at most {LONGEST} letters")


def marks_file(dataset: LeRobotDataset) -> Path:
    """Returns the default file of marks: beside the dataset; for a Hub dataset, in the current folder."""
    if dataset.is_local:
        root = dataset.root.resolve()
        return root.with_name(f"{root.name}.review.json")
    return Path(f"{dataset.name.replace('/', '--')}.review.json")


class Marks:
    """Marks by episode index. Threads and other processes may set marks at the same time: the file is read again before each write."""

    def __init__(self, path: Path, dataset: LeRobotDataset) -> None:
        """Reads the file, if it exists; the first mark makes it. DataError if it is damaged or of another dataset."""
        self.path = Path(path)
        self._about = {"dataset": dataset.name, "dataset_footage": dataset.footage_fingerprint}
        self._lock = threading.Lock()
        self._signature: tuple[int, ...] | None = None
        self._marks: dict[int, Mark] = {}
        self.revision = 0
        self._refresh()

    def all(self) -> Mapping[int, Mark]:
        """Returns every current mark, ascending."""
        with self._lock:
            self._refresh()
            return dict(sorted(self._marks.items()))

    def get(self, episode: int) -> Mark:
        """Returns the mark of one episode; without one, an empty mark."""
        return self.all().get(episode, Mark(None))

    def set(self, episode: int, mark: Mark) -> None:
        """Sets a mark; it is on disk when this returns. An empty mark removes it. BusyError if other servers write for too long."""
        with self._lock, output_lock(self.path, wait_s=WAIT_S):
            self._refresh()
            marks = {number: each for number, each in self._marks.items() if number != episode}
            if mark.kind or mark.note:
                marks[episode] = mark
            entries = [{"episode": n, "mark": each.kind, "note": each.note} for n, each in sorted(marks.items())]
            record = {"format": FORM_VERSION, **self._about, "marks": entries}
            write_text(self.path, json.dumps(record, indent=1, ensure_ascii=False, allow_nan=False) + "\n")
            self._marks, self._signature = marks, _signature(self.path)
            self.revision += 1

    def _refresh(self) -> None:
        now = _signature(self.path)
        if now != self._signature:
            self._marks = _read(self.path, self._about) if now is not None else {}
            self._signature = now
            self.revision += 1


def _signature(path: Path) -> tuple[int, ...] | None:
    try:
        status = path.stat()
    except FileNotFoundError:
        return None
    return status.st_mtime_ns, status.st_size, status.st_ino


def _read(path: Path, about: Mapping[str, str]) -> dict[int, Mark]:
    try:
        content = read_json(path, what="file of marks", finite=True)
        footage = content["dataset_footage"]
    except (KeyError, TypeError, ValueError) as error:
        raise _no_marks(path, error) from error
    require_format(content.get("format"), path)
    try:
        marks = {
            int(plausible("episode_index", each["episode"], source="a mark", name="episode")): Mark(each["mark"], each["note"])
            for each in content["marks"]
        }
    except (KeyError, TypeError, ValueError) as error:
        raise _no_marks(path, error) from error
    if footage != about["dataset_footage"]:
        raise DataError(
            f"{path} marks episodes of another dataset ('{content.get('dataset')}', {footage}; this is '{about['dataset']}', "
            f"{about['dataset_footage']}); name another file with --review-file"
        )
    return marks


def _no_marks(path: Path, error: Exception) -> DataError:
    return DataError(f"{path} is not a file of marks ({plain_reason(error)}); move it away, or name another with --review-file")


def delete_command(dataset: LeRobotDataset, dropped: Sequence[int]) -> str | None:
    """Returns LeRobot 0.6's command that copies the dataset without these episodes; None if there is none to drop, or if none would remain.

    LeRobot renumbers the episodes of the copy, and reads only v3.0: a v2.1 dataset must be converted first.
    """
    if not dropped or len(dropped) == len(dataset.meta.episodes):
        return None
    name, command = dataset.name, ["lerobot-edit-dataset", "--repo_id", dataset.name]
    if dataset.is_local:
        root = dataset.root.resolve()
        command += ["--root", str(root), "--new_root", str(root.with_name(f"{root.name}_kept"))]
    command += ["--new_repo_id", f"{name}_kept", "--operation.type", "delete_episodes"]
    return shlex.join([*command, "--operation.episode_indices", str(list(dropped))])


def as_csv(rows: Sequence[Mapping[str, Any]]) -> str:
    """Returns one line per episode; an unknown value is empty."""
    buffer = io.StringIO(newline="")
    writer = csv.writer(buffer)
    writer.writerow(list(rows[0]) if rows else [])
    writer.writerows([["" if cell is None else cell for cell in row.values()] for row in rows])
    return buffer.getvalue()
