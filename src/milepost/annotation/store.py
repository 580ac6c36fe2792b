"""Annotations while they are being made: one small JSON file an episode, on disk as soon as its answer is there.

The folder lies outside the dataset, which stays untouched until it is exported. It is marked with its provenance (dataset, model, prompt,
stage names): another provenance is refused, or a restart by name moves the old folder aside. Nothing is ever mixed or deleted.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from milepost.core import HEADS, DataError, Segment, json_value, plain_reason, read_json_object, require_writable, shown, write_text
from milepost.datasets import Annotations

_MARK = "provenance.json"


@dataclass(frozen=True)
class Answer:
    """The result of asking about one head of one episode: segments if it was accepted, else the reason of the failure.

    replies: the model's words, one an attempt. repairs: what was changed in them, in words. notes: any JSON, such as the repeats and how
    far they disagree. DataError unless it is either accepted or failed.
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
        """Returns how many times the model was asked."""
        return len(self.replies)


class AnnotationStore:
    """Answers by episode and head, in a folder that outlives the process. Threads may add at once.

    store = AnnotationStore(Path("towels.annotations"), {"dataset": dataset.fingerprint, "model": "Qwen/Qwen3-VL-8B-Instruct"})
    for number in store.missing(dataset.episode_indices, ["sparse"]):
        store.add(number, {"sparse": ask(dataset.episode(number))})
    write_annotations("towels", store.annotations())
    """

    def __init__(self, folder: str | Path, provenance: Mapping[str, str], *, restart: bool = False) -> None:
        """Opens the folder or makes it. restart: what another provenance left there is moved to `<folder>.1`, `.2`, ...

        DataError if it was made with another provenance and `restart` is not asked for, or is a folder of something else. OSError if
        it cannot be written to.
        """
        self.folder = Path(folder)
        self.provenance = dict(provenance)
        self._lock = threading.Lock()
        old_provenance = read_provenance(self.folder)
        if old_provenance is None and self.folder.is_dir() and any(not _is_begun(path) for path in self.folder.iterdir()):
            raise DataError(f"{self.folder} is a folder of something else and is not written into; choose another")
        if old_provenance is not None and old_provenance != self.provenance:
            if not restart:
                raise DataError(f"{self.folder} has answers to other questions ({_difference(old_provenance, self.provenance)}); {_CHOICE}")
            self.folder.rename(_aside(self.folder))
        require_writable(self.folder)
        if not (self.folder / _MARK).is_file():
            write_text(self.folder / _MARK, json.dumps(self.provenance, indent=2, allow_nan=False))

    def add(self, episode: int, answers: Mapping[str, Answer]) -> None:
        """Writes an episode's answers, by head. A head's earlier answer is replaced, other heads stay."""
        if not answers or set(answers) - set(HEADS):
            raise DataError(f"answers are for {' or '.join(HEADS)}, got {sorted(answers)}")
        with self._lock:  # reads and writes one file: two heads of an episode may arrive at once
            all_answers = {**self.get(episode), **answers}
            text = json.dumps(
                {"episode": episode, **{h: _to_record(all_answers[h]) for h in HEADS if h in all_answers}}, indent=1, allow_nan=False
            )
            write_text(self._path(episode), text)

    def get(self, episode: int) -> dict[str, Answer]:
        """Returns the episode's answers by head; empty if there is none. DataError if its file is damaged."""
        path = self._path(episode)
        return _read(path)[1] if path.is_file() else {}

    def missing(self, episodes: Iterable[int], heads: Sequence[str], *, failed: bool = False) -> list[int]:
        """Returns those of the episodes that still have to be asked about one of the heads; with `failed` also those whose answer
        failed.
        """
        by_episode = self.answers()
        answered = {e: {h for h, answer in by_head.items() if not (failed and answer.failure)} for e, by_head in by_episode.items()}
        return [episode for episode in episodes if not set(heads) <= answered.get(episode, set())]

    def answers(self) -> dict[int, dict[str, Answer]]:
        """Returns every episode's answers, by episode index. DataError if a file is damaged."""
        return dict(_answers(self.folder))

    def annotations(self) -> dict[int, dict[str, tuple[Segment, ...]]]:
        """Returns the accepted segments, as `write_annotations` takes them."""
        return _accepted(self.answers())

    def failures(self) -> dict[tuple[int, str], str]:
        """Returns (episode, head) -> why there is no annotation."""
        return {(e, head): answer.failure for e, by_head in self.answers().items() for head, answer in by_head.items() if answer.failure}

    def _path(self, episode: int) -> Path:
        return self.folder / f"episode-{episode:06d}.json"


def _is_begun(path: Path) -> bool:
    """Returns whether this is a file of ours that a killed process had begun to write."""
    return path.name.startswith((f".{_MARK}.", ".episode-"))


_CHOICE = "go on with the old settings, choose another folder, or restart by name (the old answers are moved aside, not deleted)"


def read_store(folder: Path) -> Annotations:
    """Returns the segments accepted so far in a store's folder, whatever its provenance."""
    return _accepted(dict(_answers(folder)))


def read_provenance(folder: Path) -> dict[str, str] | None:
    """Returns what the answers in this folder depend on; None if it is no store. DataError if it cannot be read."""
    path = Path(folder) / _MARK
    return _json(path) if path.is_file() else None


def _answers(folder: Path) -> Iterator[tuple[int, dict[str, Answer]]]:
    yield from sorted((_read(path) for path in folder.glob("episode-*.json")), key=lambda item: item[0])


def _accepted(answers: Mapping[int, Mapping[str, Answer]]) -> dict[int, dict[str, tuple[Segment, ...]]]:
    accepted = {episode: {head: a.segments for head, a in heads.items() if a.segments} for episode, heads in answers.items()}
    return {episode: heads for episode, heads in accepted.items() if heads}


def _read(path: Path) -> tuple[int, dict[str, Answer]]:
    record = _json(path)
    try:
        return int(record["episode"]), {head: _from_record(record[head]) for head in HEADS if head in record}
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"{path} is not an episode's answers ({plain_reason(error)}); remove it and the episode is asked again") from error


def _from_record(record: Mapping[str, Any]) -> Answer:
    segments = record["segments"]
    return Answer(
        None if segments is None else tuple(Segment(str(name), int(start), int(stop)) for name, start, stop in segments),
        str(record["failure"]),
        tuple(record["replies"]),
        tuple(record["repairs"]),
        dict(record["notes"]),
    )


def _to_record(answer: Answer) -> dict[str, Any]:
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
