"""What a person thinks of each episode: keep, drop or unsure, and a note; one JSON file beside the dataset, on disk after every change.

Refuses a file of another dataset, and a damaged one: it is somebody's work. The list leaves as JSON or CSV, with the command by which
LeRobot makes a copy of the dataset without the dropped episodes; nothing is deleted here.
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

from milepost.core import DataError, output_lock, plausible, read_json, shown, write_text
from milepost.datasets import LeRobotDataset

KINDS = ("keep", "drop", "unsure")
LONGEST = 4000
"""Letters of a note."""
WAIT_S = 10.0
"""How long a mark waits for another server of the same file, which writes one in milliseconds."""


@dataclass(frozen=True)
class Mark:
    """kind: one of `KINDS`, or None where there is only a note."""

    kind: str | None
    note: str = ""

    def __post_init__(self) -> None:
        if self.kind is not None and self.kind not in KINDS:
            raise DataError(f"a mark is {', '.join(KINDS)} or none, got {shown(self.kind)}")
        if not isinstance(self.note, str) or len(self.note) > LONGEST or any("\ud800" <= letter <= "\udfff" for letter in self.note):
            raise DataError(f"a note is a text of at most {LONGEST} letters")


def marks_file(dataset: LeRobotDataset) -> Path:
    """Where marks are kept unless told otherwise: beside the dataset; here, for a Hub dataset."""
    if dataset.is_local:
        root = dataset.root.resolve()
        return root.with_name(f"{root.name}.review.json")
    return Path(f"{dataset.name.replace('/', '--')}.review.json")


class Marks:
    """Marks by episode number. Threads may set at once; so may another process: the file is read again before it is written."""

    def __init__(self, path: Path, dataset: LeRobotDataset) -> None:
        """DataError if the file is damaged or of another dataset. It is made by the first mark."""
        self.path = Path(path)
        self._about = {"dataset": dataset.name, "dataset_footage": dataset.footage_fingerprint}
        self._lock = threading.Lock()
        self._seen: tuple[int, ...] | None = None
        self._held: dict[int, Mark] = {}
        self.revision = 0
        self._refresh()

    def all(self) -> Mapping[int, Mark]:
        """Every mark there is now, ascending."""
        with self._lock:
            self._refresh()
            return dict(sorted(self._held.items()))

    def get(self, episode: int) -> Mark:
        return self.all().get(episode, Mark(None))

    def set(self, episode: int, mark: Mark) -> None:
        """Keeps it, on disk when this returns. A mark of nothing removes it. BusyError if other servers write for too long."""
        with self._lock, output_lock(self.path, wait_s=WAIT_S):
            self._refresh()
            held = {number: each for number, each in self._held.items() if number != episode}
            if mark.kind or mark.note:
                held[episode] = mark
            listed = [{"episode": n, "mark": each.kind, "note": each.note} for n, each in sorted(held.items())]
            write_text(self.path, json.dumps({**self._about, "marks": listed}, indent=1, ensure_ascii=False) + "\n")
            self._held, self._seen = held, _signature(self.path)
            self.revision += 1

    def _refresh(self) -> None:
        now = _signature(self.path)
        if now != self._seen:
            self._held = _read(self.path, self._about) if now is not None else {}
            self._seen = now
            self.revision += 1


def _signature(path: Path) -> tuple[int, ...] | None:
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino


def _read(path: Path, about: Mapping[str, str]) -> dict[int, Mark]:
    try:
        held = read_json(path, what="file of marks", finite=True)
        told = held["dataset_footage"]
        marks = {
            int(plausible("episode_index", each["episode"], source="a mark", name="episode")): Mark(each["mark"], each["note"])
            for each in held["marks"]
        }
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"{path} is not a file of marks ({error}); move it away, or name another with --review-file") from error
    if told != about["dataset_footage"]:
        raise DataError(
            f"{path} marks episodes of another dataset ('{held.get('dataset')}', {told}; this is '{about['dataset']}', "
            f"{about['dataset_footage']}); name another file with --review-file"
        )
    return marks


def delete_command(dataset: LeRobotDataset, dropped: Sequence[int]) -> str | None:
    """LeRobot 0.6's command for a copy of the dataset without these episodes; None if there is none to drop, or none would be left.

    LeRobot numbers the episodes of the copy anew, and reads v3.0 alone: a v2.1 dataset has to be converted first.
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
    """One line an episode; unknown is empty."""
    buffer = io.StringIO(newline="")
    writer = csv.writer(buffer)
    writer.writerow(list(rows[0]) if rows else [])
    writer.writerows([["" if cell is None else cell for cell in row.values()] for row in rows])
    return buffer.getvalue()
