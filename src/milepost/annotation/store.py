"""Annotations while they are being made: one small JSON file an episode, on disk the moment its answer is there.

The folder lies outside the dataset, which stays untouched until `export`. It is marked with its provenance (dataset, model, prompt,
stage names): another provenance is refused, or started anew by name with the old folder moved aside. Nothing is ever mixed or deleted.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from milepost.core import DataError, Segment, json_value, read_json_object, require_writable, shown, write_text
from milepost.datasets import HEADS, Annotations

_MARK = "provenance.json"


@dataclass(frozen=True)
class Answer:
    """What asking for one head of one episode came to: segments if it was accepted, else the failure's reason.

    replies: the model's words, one an attempt. repairs: what was changed in them, in words. notes: any JSON, such as the repeats and
    how far they disagree. DataError unless it is either accepted or failed.
    """

    segments: tuple[Segment, ...] | None = None
    failure: str = ""
    replies: tuple[str, ...] = ()
    repairs: tuple[str, ...] = ()
    notes: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if bool(self.segments) == bool(self.failure):
            raise DataError(f"an answer has segments or a reason why not, got {self.segments} and '{self.failure}'")

    @property
    def attempts(self) -> int:
        """How many times the model was asked."""
        return len(self.replies)


class AnnotationStore:
    """Answers by episode and head, in a folder that outlives the process. Threads may add at once.

    store = AnnotationStore(Path("towels.annotations"), {"dataset": dataset.fingerprint, "model": "Qwen/Qwen3-VL-8B-Instruct"})
    for number in store.missing(dataset.episode_indices, ["sparse"]):
        store.add(number, {"sparse": ask(dataset.episode(number))})
    write_annotations("towels", store.annotations())
    """

    def __init__(self, folder: str | Path, provenance: Mapping[str, str], *, restart: bool = False) -> None:
        """Open the folder or make it. restart: what another provenance left there is moved to `<folder>.1`, `.2`, ...

        DataError if it was made with another provenance and `restart` is not asked for, or is a folder of something else. OSError if
        it cannot be written to.
        """
        self.folder = Path(folder)
        self.provenance = dict(provenance)
        self._lock = threading.Lock()
        held = read_provenance(self.folder)
        if held is None and self.folder.is_dir() and any(not _is_begun(path) for path in self.folder.iterdir()):
            raise DataError(f"{self.folder} is a folder of something else and is not written into; choose another")
        if held is not None and held != self.provenance:
            if not restart:
                raise DataError(f"{self.folder} has answers to other questions ({_difference(held, self.provenance)}); {_CHOICE}")
            self.folder.rename(_aside(self.folder))
        require_writable(self.folder)
        if not (self.folder / _MARK).is_file():
            write_text(self.folder / _MARK, json.dumps(self.provenance, indent=2))

    def add(self, episode: int, answers: Mapping[str, Answer]) -> None:
        """Keep an episode's answers, by head, for good. A head's earlier answer is replaced, other heads stay."""
        if not answers or set(answers) - set(HEADS):
            raise DataError(f"answers are for {' or '.join(HEADS)}, got {sorted(answers)}")
        with self._lock:
            kept = {**self.get(episode), **answers}
            text = json.dumps({"episode": episode, **{h: _written(kept[h]) for h in HEADS if h in kept}}, indent=1)
            write_text(self._path(episode), text)

    def get(self, episode: int) -> dict[str, Answer]:
        """The episode's answers by head; empty if there is none. DataError if its file is damaged."""
        path = self._path(episode)
        return _read(path)[1] if path.is_file() else {}

    def missing(self, episodes: Iterable[int], heads: Sequence[str], *, failed: bool = False) -> list[int]:
        """Those of the episodes that are still to be asked for one of the heads; with `failed` also those whose answer failed."""
        held = self.answers()
        done = {e: {h for h, answer in found.items() if not (failed and answer.failure)} for e, found in held.items()}
        return [episode for episode in episodes if not set(heads) <= done.get(episode, set())]

    def answers(self) -> dict[int, dict[str, Answer]]:
        """Every episode's answers, by number. DataError if a file is damaged."""
        return dict(_answers(self.folder))

    def annotations(self) -> dict[int, dict[str, tuple[Segment, ...]]]:
        """What was accepted, as `write_annotations` takes it."""
        return _accepted(self.answers())

    def failures(self) -> dict[tuple[int, str], str]:
        """(episode, head) -> why there is no annotation."""
        return {(e, head): answer.failure for e, found in self.answers().items() for head, answer in found.items() if answer.failure}

    def _path(self, episode: int) -> Path:
        return self.folder / f"episode-{episode:06d}.json"


def _is_begun(path: Path) -> bool:
    """Is this a file of ours that a killed process had begun to write?"""
    return path.name.startswith((f".{_MARK}.", ".episode-"))


_CHOICE = "go on with the old settings, choose another folder, or restart by name (the old answers are moved aside, not deleted)"


def read_store(folder: Path) -> Annotations:
    """What was accepted so far in a store's folder, whatever its provenance."""
    return _accepted(dict(_answers(folder)))


def read_provenance(folder: Path) -> dict[str, str] | None:
    """What the answers in this folder were asked with; None if it is no store. DataError if it cannot be read."""
    path = Path(folder) / _MARK
    return _json(path) if path.is_file() else None


def _answers(folder: Path) -> Iterator[tuple[int, dict[str, Answer]]]:
    yield from sorted((_read(path) for path in folder.glob("episode-*.json")), key=lambda found: found[0])


def _accepted(answers: Mapping[int, Mapping[str, Answer]]) -> dict[int, dict[str, tuple[Segment, ...]]]:
    found = {number: {head: a.segments for head, a in heads.items() if a.segments} for number, heads in answers.items()}
    return {number: heads for number, heads in found.items() if heads}


def _read(path: Path) -> tuple[int, dict[str, Answer]]:
    held = _json(path)
    try:
        return int(held["episode"]), {head: _answer(held[head]) for head in HEADS if head in held}
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"{path} is not an episode's answers ({error}); remove it and the episode is asked again") from error


def _answer(held: Mapping[str, Any]) -> Answer:
    segments = held["segments"]
    return Answer(
        None if segments is None else tuple(Segment(str(name), int(start), int(stop)) for name, start, stop in segments),
        str(held["failure"]),
        tuple(held["replies"]),
        tuple(held["repairs"]),
        dict(held["notes"]),
    )


def _written(answer: Answer) -> dict[str, Any]:
    return {
        "segments": None if answer.segments is None else [[s.name, s.start, s.stop] for s in answer.segments],
        "failure": answer.failure,
        "replies": list(answer.replies),
        "repairs": list(answer.repairs),
        "notes": json_value(answer.notes),
    }


def _json(path: Path) -> Any:
    try:
        return read_json_object(path, what="answers")
    except DataError as error:
        raise DataError(f"{error}; remove it and it is made again") from error


def _difference(old: Mapping[str, str], new: Mapping[str, str]) -> str:
    keys = [key for key in {**old, **new} if old.get(key) != new.get(key)]
    return "; ".join(f"{key} was {_shown(old.get(key))}, is {_shown(new.get(key))}" for key in keys)


def _shown(value: str | None) -> str:
    return "None" if value is None else shown(value)


def _aside(folder: Path) -> Path:
    number = 1
    while folder.with_name(f"{folder.name}.{number}").exists():
        number += 1
    return folder.with_name(f"{folder.name}.{number}")
