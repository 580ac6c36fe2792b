"""What the page knows: a dataset, curves of several models, weights, annotations and marks, as plain objects for JSON.

The list of episodes in columns (`episodes`, `events`), one episode in full (`episode`), and the two things a person changes here: the
annotation of an episode (`save`) and its mark. What others write into the dataset meanwhile is seen by the next request. Refuses
episodes, cameras and heads that there are not; draws nothing and serves nothing.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from milepost.annotation.export import ChangedError
from milepost.annotation.replacing import require_editable
from milepost.events import KINDS, find_events
from milepost.lerobot import LeRobotDataset, open_dataset
from milepost.metadata import HEADS
from milepost.plots.style import STAGE_COLOURS
from milepost.report import Reading, picture, reading
from milepost.stages import Stages, names_in_order
from milepost.store import METADATA_PREFIX, ProgressTable
from milepost.types import DataError, Episode, Segment
from milepost.viewer.marks import Mark, Marks
from milepost.viewer.plain import counted, plain, rounded
from milepost.viewer.saving import Edit, FaultyError, judged, parse_segments, version_of, write
from milepost.viewer.summaries import Counted, Counting, Rows, annotated_progress, compared, count_all, curves_of, listed

MADE = ("model", "model_path", "model_commit", "created", "code", "stride", "heads", "encoder", "precision")
"""Of a progress file's provenance, what the page shows; other keys have long values."""


@dataclass(frozen=True, eq=False)
class Model:
    """A progress file: where it is and what is in it."""

    path: Path
    table: ProgressTable


class Review:
    """One dataset under review. Threads may ask at once; changes are made one at a time."""

    def __init__(
        self,
        dataset: LeRobotDataset,
        models: Mapping[str, Model],
        *,
        marks: Marks,
        numbers: Sequence[int] | None = None,
        weights: tuple[Path, np.ndarray] | None = None,
        problems: Sequence[str] = (),
    ) -> None:
        """numbers: the episodes shown, all if None. weights: the file and its numbers by row of the dataset (R,), NaN where it has none.
        A model whose rows are not the dataset's is left out and named in `problems`."""
        self.marks, self.problems = marks, list(problems)
        self._dataset, self.fingerprint = dataset, dataset.fingerprint
        self._on_disk = _signature(dataset)
        self._lock, self._saving = threading.RLock(), threading.Lock()
        self.rows = Rows.of(dataset, tuple(dataset.meta.episodes) if numbers is None else numbers)
        self.models: dict[str, Model] = {}
        self._curves: dict[str, dict[str, np.ndarray]] = {}
        for name, model in models.items():
            try:
                self._curves[name] = curves_of(model.table, dataset, self.rows.count)
                self.models[name] = model
            except DataError as error:
                self.problems.append(f"{model.path}: {error}")
        self.weights = weights
        self._ends, self._kept = listed(self.rows, self._curves, weights[1] if weights is not None else None)
        self.counting, self._found = Counting(), Counted()
        self.counting.submit(lambda: count_all(self._found, self.counting, dataset, self.rows, self._curves))
        self._compare()

    def close(self) -> None:
        self.counting.close()

    # What is on disk now

    @property
    def dataset(self) -> LeRobotDataset:
        """As its meta/ is now: read again if somebody wrote it. DataError if it became another dataset."""
        with self._lock:
            if (now := _signature(self._dataset)) != self._on_disk:
                fresh = open_dataset(self._dataset.root)
                if _shape(fresh) != _shape(self._dataset):
                    raise DataError(f"{self._dataset.root} became another dataset while it was looked at; start milepost view again")
                self._dataset, self._on_disk = fresh, now
                self._compare()
            return self._dataset

    def stages(self) -> dict[str, tuple[str, ...]]:
        """Head -> its stages in order, those of the dataset; a head without a list by what its annotations name."""
        dataset = self.dataset
        told = {head: stages.names for head, stages in dataset.stages.items()}
        for head in HEADS:
            if head not in told and (held := [s for s in self._segments(dataset, head).values() if s]):
                told[head] = names_in_order(held)
        return told

    def _segments(self, dataset: LeRobotDataset, head: str) -> dict[int, tuple[Segment, ...]]:
        """Every episode's annotation; an unreadable one is none here, and an error where it is looked at."""
        found = {}
        for number in self.rows.numbers:
            try:
                found[number] = dataset.meta.episodes[number].segments.get(head, ())
            except DataError:
                found[number] = ()
        return found

    # The dataset

    def about(self) -> dict[str, Any]:
        """`GET /api/dataset`."""
        dataset = self.dataset
        why = self._why_not_editable(dataset)
        return {
            "name": dataset.name,
            "fingerprint": self.fingerprint,
            "version": dataset.version,
            "fps": dataset.fps,
            "frames": int(self.rows.length.sum()),
            "cameras": list(dataset.cameras),
            "tasks": self._tasks(),
            "heads": self.heads(),
            "models": [
                {"name": name, "path": str(model.path), "heads": list(model.table.curves), "made": _made(model.table.metadata)}
                for name, model in self.models.items()
            ],
            "weights": {"path": str(self.weights[0])} if self.weights is not None else None,
            "truth": "truth.progress" in dataset.meta.features,
            "editable": not why,
            "why_not_editable": why,
            "problems": [*self.problems, *self._found.problems],
            "marks_file": str(self.marks.path),
            "event_kinds": list(KINDS),
        }

    def heads(self) -> dict[str, dict[str, Any]]:
        """Head -> its stages' names and colours, and who named them. The dataset's come first, so they keep their colours."""
        own = self.stages()
        curves = {head for model in self.models.values() for head in model.table.curves}
        found = {}
        for head in HEADS:
            named = list(dict.fromkeys(name for model in self.models.values() for name in _model_stages(model.table, head)))
            if head != "sparse" and head not in own and head not in curves:
                continue
            names = list(dict.fromkeys([*own.get(head, ()), *named]))
            source = "annotations" if head in own else "model" if named else "truth" if self._truth_of(head) else "none"
            found[head] = {"names": names, "colours": _colours(len(names)), "source": source, "own": len(own.get(head, ()))}
        return found

    def _truth_of(self, head: str) -> bool:
        return head == "sparse" and "truth.stage" in self._dataset.meta.features

    def _tasks(self) -> list[str]:
        records = self._dataset.meta.episodes
        return list(dict.fromkeys([*self._dataset.tasks, *(next(iter(records[n].tasks), "") for n in self.rows.numbers)]))

    def _why_not_editable(self, dataset: LeRobotDataset) -> str:
        if not dataset.is_local:
            return "a Hub dataset is read from a shared cache and never edited there; download a copy of your own to annotate it"
        try:
            require_editable(dataset.root)
        except DataError as error:
            return str(error)
        return ""

    # The list

    def key(self) -> tuple[Any, ...]:
        """Changes whenever `episodes` would."""
        return self.dataset, self.marks.all(), self.marks.revision, self.counting.revision

    def episodes(self) -> dict[str, Any]:
        """`GET /api/episodes`: one entry an episode in every column. Events and disagreement are null until they are counted."""
        dataset, numbers, tasks = self.dataset, self.rows.numbers, {task: i for i, task in enumerate(self._tasks())}
        records, marks = dataset.meta.episodes, self.marks.all()
        heads = [head for head in HEADS if head in self.heads()]
        later = self._later()
        models = {
            model: {head: {**columns, "events": later["models"].get(model, {}).get(head, {}).get("events")} for head, columns in by.items()}
            for model, by in self._ends.items()
        }
        return {
            "index": list(numbers),
            "task": [tasks[next(iter(records[n].tasks), "")] for n in numbers],
            "length": self.rows.length.tolist(),
            "kind": [None if (kind := records[n].facts.get("kind")) is None else str(kind) for n in numbers],
            "annotated": {head: [int(bool(s)) for s in self._segments(dataset, head).values()] for head in heads},
            "mark": [marks[n].kind if n in marks else None for n in numbers],
            "note": {str(n): mark.note for n, mark in marks.items() if mark.note},
            "weight_kept": self._kept,
            **later,
            "models": models,
        }

    def events(self, wait_s: float = 0.0) -> dict[str, Any]:
        """`GET /api/events`: the columns that are counted behind, waited for so long; `ready` says whether this is all."""
        self.counting.wait(wait_s)
        return self._later()

    def _later(self) -> dict[str, Any]:
        ready, found = self.counting.wait(0), self._found
        told = {number: self._dataset.meta.episodes[number].facts.get("success") for number in self.rows.numbers}
        return {
            "ready": ready,
            "success": [found.success.get(n) if success is None else bool(success) for n, success in told.items()],
            "disagreement": None if found.disagreement is None else rounded(np.array(found.disagreement)),
            "disagreement_of": found.disagreement_of,
            "models": {m: {h: {"events": found.events.get(m, {}).get(h)} for h in heads} for m, heads in self._curves.items()},
        }

    def _compare(self) -> None:
        """Count the disagreement, again if it depends on what was annotated."""
        dataset = self._dataset

        def count() -> None:
            truth, found = self._found.truth, self._found
            stages = dataset.stages.get("sparse")
            if truth is None and len(self._curves) == 1 and stages is not None:
                success = dict(zip(self.rows.numbers, self._later()["success"], strict=True))
                truth = annotated_progress(self._segments(dataset, "sparse"), stages, self.rows, success.get)
            pair = compared(self._curves, truth)
            if pair is not None:
                found.disagreement_of, found.disagreement = pair[0], pair[1](self.rows)

        if len(self._curves) < 2 or self._found.disagreement is None:
            self.counting.submit(count)

    # One episode

    def read(self, number: int) -> Episode:
        """The episode with this number, if it is among those shown. DataError as `LeRobotDataset.episode`."""
        if number not in self.rows.numbers:
            raise KeyError(number)
        return self.dataset.episode(number)

    def episode(self, number: int) -> dict[str, Any]:
        """`GET /api/episodes/{n}` but for the addresses of its films. KeyError for an episode that is not shown."""
        episode, dataset, mark = self.read(number), self._dataset, self.marks.get(number)
        return {
            "index": number,
            "task": episode.task,
            "fps": episode.fps,
            "length": episode.length,
            "success": episode.success,
            "facts": plain(episode.facts),
            "mark": mark.kind,
            "note": mark.note,
            "row": episode.row,
            "heads": {head: self._head(episode, dataset, head, about) for head, about in self.heads().items()},
            "weight": rounded(self._weight(episode)) if self.weights is not None else None,
            "events": {
                name: {head: [plain(vars(event)) for event in find_events(curve, episode.fps)] for head, curve in by.items()}
                for name, by in self.curves(episode).items()
            },
        }

    def curves(self, episode: Episode) -> dict[str, dict[str, Float[np.ndarray, "T"]]]:
        """Model -> head -> its curve of this episode."""
        span = slice(episode.row, episode.row + episode.length)
        return {name: {head: curve[span] for head, curve in heads.items()} for name, heads in self._curves.items()}

    def readings(self, episode: Episode, stages: Mapping[str, Stages], head: str) -> dict[str, Reading]:
        """Model -> what it says of this episode by this head, for the models that have it."""
        tables = {name: model.table for name, model in self.models.items() if head in model.table.curves}
        return {name: reading(table, episode, stages.get(head), head) for name, table in tables.items()}

    def _weight(self, episode: Episode) -> np.ndarray:
        assert self.weights is not None
        return self.weights[1][episode.row : episode.row + episode.length]

    def _head(self, episode: Episode, dataset: LeRobotDataset, head: str, about: Mapping[str, Any]) -> dict[str, Any]:
        stages, segments = dataset.stages, episode.segments.get(head, ())
        seen = picture(episode, {head: self.readings(episode, stages, head)}, stages, sampled=False).heads[head]
        names = list(dict.fromkeys([*about["names"], *seen.stage_names]))
        place = np.array([names.index(name) for name in seen.stage_names] or [0])
        out: dict[str, Any] = {
            "names": names,
            "colours": _colours(len(names)),
            "curves": {name: rounded(curve) for name, curve in seen.curves.items()},
            "probabilities": {name: counted(_likeliest(each, place)) for name, each in seen.probabilities.items()},
            "truth_source": seen.truth_source,
            "segments": _as_objects(segments),
            "version": version_of(segments),
        }
        if seen.truth is not None:
            out["truth"] = rounded(seen.truth)
        if seen.true_stage is not None:
            out["true_stage"] = counted(np.where(seen.true_stage < 0, -1, place[np.clip(seen.true_stage, 0, len(place) - 1)]))
        return out

    # What a person changes

    def save(self, number: int, body: Mapping[str, Any]) -> dict[str, Any]:
        """`PUT /api/episodes/{n}/segments`. KeyError for an unknown episode, FaultyError for what does not pass the checks, ChangedError
        if the annotation on disk is another than the page began with, PermissionError for a dataset that is not edited."""
        with self._saving:
            episode, dataset = self.read(number), self._dataset
            if why := self._why_not_editable(dataset):
                raise PermissionError(why)
            head, names = body.get("head"), body.get("names")
            if head not in HEADS:
                raise FaultyError([f"the head should be {' or '.join(HEADS)}, got {head!r}"])
            if names is not None and not (isinstance(names, list) and all(isinstance(name, str) for name in names)):
                raise FaultyError(["names should be a list of all stage names in their order"])
            before = episode.segments.get(head, ())
            if body.get("version") != version_of(before):
                raise ChangedError(f"the {head} annotation of episode {number} was changed meanwhile")
            edit = Edit(
                number,
                head,
                parse_segments(body.get("segments")),
                before,
                known=self.stages().get(head, ()),
                names=tuple(names) if names else None,
                length=episode.length,
                fps=episode.fps,
                success=episode.success,
            )
            segments, repairs = judged(edit, _store_folder(dataset))
            if segments != before or edit.names not in (None, edit.known):
                write(dataset.root, edit, segments)
        return {**self.held(number, head), "heads": self.heads(), "repairs": repairs}

    def held(self, number: int, head: str) -> dict[str, Any]:
        """The annotation as it is on disk now, and its version."""
        segments = self.dataset.meta.episodes[number].segments.get(head, ())
        return {"segments": _as_objects(segments), "version": version_of(segments)}

    def mark(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """`PUT /api/marks`. KeyError for an unknown episode, DataError for another kind of mark."""
        number = body.get("episode")
        if number not in self.rows.numbers or isinstance(number, bool):
            raise KeyError(number)
        mark = Mark(body.get("mark"), body.get("note") or "")
        self.marks.set(number, mark)
        return {"episode": number, "mark": mark.kind, "note": mark.note}

    def marked(self) -> list[dict[str, Any]]:
        """One row a mark, for the downloads."""
        listed, place = self.episodes(), {number: i for i, number in enumerate(self.rows.numbers)}
        tasks = self._tasks()
        finals = next((columns["final"] for heads in listed["models"].values() for columns in heads.values()), None)
        return [
            {
                "episode": number,
                "mark": mark.kind,
                "note": mark.note,
                "task": tasks[listed["task"][place[number]]],
                "length": listed["length"][place[number]],
                "final_progress": finals[place[number]] if finals is not None else None,
                "success": listed["success"][place[number]],
            }
            for number, mark in self.marks.all().items()
            if number in place
        ]


def _signature(dataset: LeRobotDataset) -> tuple[Any, ...]:
    """What changes when somebody writes into meta/. A Hub dataset's commit does not change."""
    return tuple(_stamps(dataset.root / "meta")) if dataset.is_local else ()


def _stamps(meta: Path) -> Iterator[tuple[str, int, int, int]]:
    for path in (*sorted(meta.glob("episodes/*/*.parquet")), *sorted(meta.glob("*.json*"))):
        try:
            found = path.stat()
        except FileNotFoundError:  # renamed over at this moment
            continue
        yield path.name, found.st_mtime_ns, found.st_size, found.st_ino


def _shape(dataset: LeRobotDataset) -> list[tuple[int, int, int]]:
    return [(record.index, record.row, record.length) for record in dataset.meta.episodes.values()]


def _store_folder(dataset: LeRobotDataset) -> Path:
    """Where `milepost annotate` keeps its answers, unless it was told otherwise."""
    root = dataset.root.resolve()
    return root.with_name(f"{root.name}.annotations")


def _made(metadata: Mapping[str, str]) -> dict[str, str]:
    told = {key.removeprefix(METADATA_PREFIX): value for key, value in metadata.items()}
    return {key: told[key] for key in MADE if key in told}


def _model_stages(table: ProgressTable, head: str) -> Sequence[str]:
    """What the model that made the file calls its stages, if it says so and has more than one."""
    config = json.loads(table.metadata.get(f"{METADATA_PREFIX}config") or "{}")
    names = config.get(f"{head}_subtask_names") or ()
    return names if head in table.stages and len(names) == table.stages[head].shape[1] > 1 else ()


def _colours(count: int) -> list[str]:
    return [STAGE_COLOURS[k % len(STAGE_COLOURS)].lower() for k in range(count)]


def _likeliest(probability: Float[np.ndarray, "T K"], place: np.ndarray) -> np.ndarray:
    """The likeliest stage of each frame by its number on the page, -1 where unknown."""
    known = ~np.isnan(probability).any(axis=1)
    return np.where(known, place[np.nan_to_num(probability).argmax(axis=1)], -1)


def _as_objects(segments: Sequence[Segment]) -> list[dict[str, Any]]:
    return [{"name": each.name, "start": each.start, "stop": each.stop} for each in segments]
