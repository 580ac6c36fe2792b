"""The data of the review page: a dataset, curves of several models, weights, annotations and marks, as plain objects for JSON.

It has the list of episodes in columns (`episodes`, `events`), one episode in full (`episode`), and the two changes that a person can make:
the annotation of an episode (`save`) and its mark. The next request sees changes that other processes make to the dataset. Unknown
episodes, cameras and heads are refused. It draws nothing and serves nothing.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from milepost.core import HEADS, Curve, DataError, Episode, Segment, Stages, json_value, shown, success_in
from milepost.datasets import ChangedError, LeRobotDataset
from milepost.figures import STAGE_COLOURS, curve_of, episode_view
from milepost.metrics import KINDS, find_events
from milepost.progress import ProgressTable, curves_by_row
from milepost.viewer.json_arrays import integers, rounded
from milepost.viewer.marks import Mark, Marks
from milepost.viewer.saving import Edit, FaultyError, check_edit, parse_segments, version_of, write
from milepost.viewer.summaries import (
    BackgroundJobs,
    BackgroundResults,
    EpisodeRows,
    annotated_progress,
    count_all,
    curves_to_compare,
    quick_columns,
)
from milepost.viewer.watch import DatasetWatcher, segments_of, stage_names, store_folder, why_not_editable

MOST = 20_000
"""Episodes that one page shows: at a curve each, its list is 2 MB. A browser that holds ten times as many sorts them slowly."""
MADE = ("model", "model_path", "model_commit", "created", "code", "stride", "heads", "encoder", "precision")
"""The keys of a progress file's provenance that the page shows; other keys have long values."""


@dataclass(frozen=True, eq=False)
class Model:
    """A progress file: its path and its content."""

    path: Path
    table: ProgressTable


class Review:
    """One dataset under review. Threads may read at once; changes are made one at a time."""

    def __init__(
        self,
        dataset: LeRobotDataset,
        models: Mapping[str, Model],
        *,
        marks: Marks,
        numbers: Sequence[int] | None = None,
        weights: tuple[Path, np.ndarray] | None = None,
        problems: Sequence[str] = (),
        report: str = "",
    ) -> None:
        """Reads the curves of every model. numbers: the indices of the episodes to show, all if None. weights: the file and its weights by
        row of the dataset (R,), NaN where it has none. A model whose rows are not the dataset's is left out, with a message in
        `problems`. report: an HTML fragment that the page shows first, unchanged."""
        self.marks, self.problems, self.report = marks, list(problems), report
        self.fingerprint = dataset.fingerprint
        self._watcher, self._saving = DatasetWatcher(dataset, self._compare), threading.Lock()
        self.rows = EpisodeRows.of(dataset, self._first(dataset.meta.choose(None, dataset.name) if numbers is None else numbers))
        self._indices = frozenset(self.rows.numbers)
        self.models: dict[str, Model] = {}
        self._curves: dict[str, dict[str, np.ndarray]] = {}
        self._stage_names: dict[str, dict[str, Sequence[str]]] = {}
        for name, model in models.items():
            try:
                self._curves[name] = curves_by_row(model.path, model.table, dataset)
                self._stage_names[name] = {head: _stage_names(curve) for head, curve in model.table.heads.items()}
                self.models[name] = model
            except DataError as error:
                self._curves.pop(name, None)
                self.problems.append(str(error))
        self.weights = weights
        self._ends, self._mean_weight = quick_columns(self.rows, self._curves, weights[1] if weights is not None else None)
        self.jobs, self._results = BackgroundJobs(), BackgroundResults()
        self.jobs.submit(lambda: count_all(self._results, self.jobs, dataset, self.rows, self._curves))
        self._compare(dataset)

    def _first(self, numbers: Sequence[int]) -> Sequence[int]:
        """Returns the episodes that the page shows: all, or as many as a browser holds, with a message in `problems`."""
        if len(numbers) > MOST:
            first, last = numbers[0], numbers[MOST - 1]
            others = f"{numbers[MOST]}-{numbers[min(2 * MOST, len(numbers)) - 1]}"
            words = f"{len(numbers)} episodes are more than a page holds: {first} to {last}, the first {MOST}, are shown"
            self.problems.append(f"{words}; choose others with --episodes, for instance {others}")
        return numbers[:MOST]

    def stop(self) -> None:
        """Asks the background jobs to give up soon. Safe in a signal handler."""
        self.jobs.stop()

    def close(self) -> None:
        self.jobs.close()

    @property
    def dataset(self) -> LeRobotDataset:
        """Returns the dataset as it is on disk now. DataError if it became another one."""
        return self._watcher.current()

    # The dataset

    def about(self) -> dict[str, Any]:
        """Returns the body of `GET /api/dataset`."""
        dataset = self.dataset
        why = why_not_editable(dataset)
        return {
            "name": dataset.name,
            "fingerprint": self.fingerprint,
            "version": dataset.version,
            "fps": dataset.fps,
            "frames": int(self.rows.length.sum()),
            "cameras": list(dataset.cameras),
            "tasks": self._tasks(dataset),
            "heads": self._heads(dataset),
            "palette": _colours(len(STAGE_COLOURS)),
            "models": [
                {"name": name, "path": str(model.path), "heads": list(model.table.heads), "made": _provenance(model.table)}
                for name, model in self.models.items()
            ],
            "weights": {"path": str(self.weights[0])} if self.weights is not None else None,
            "truth": "truth.progress" in dataset.meta.features,
            "editable": not why,
            "why_not_editable": why,
            "problems": [*self.problems, *self._results.problems],
            "marks_file": str(self.marks.path),
            "event_kinds": list(KINDS),
        }

    def _heads(self, dataset: LeRobotDataset) -> dict[str, dict[str, Any]]:
        """Returns head -> its stages' names and colours, and the source of the names. The dataset's own come first; `own` is their
        number."""
        own, heads = stage_names(dataset), {}
        for head in HEADS:
            by_model = [names[head] for names in self._stage_names.values() if head in names]
            if head == "sparse" or head in own or by_model:
                names = list(dict.fromkeys([*own.get(head, ()), *(name for each in by_model for name in each)]))
                truth = head == "sparse" and "truth.stage" in dataset.meta.features
                source = "annotations" if head in own else "model" if names else "truth" if truth else "none"
                heads[head] = {"names": names, "colours": _colours(len(names)), "source": source, "own": len(own.get(head, ()))}
        return heads

    def _tasks(self, dataset: LeRobotDataset) -> list[str]:
        arrays = dataset.meta.arrays
        own = [next(iter(arrays.tasks[code]), "") for code in dict.fromkeys(arrays.task[arrays.places(self.rows.numbers)].tolist())]
        return list(dict.fromkeys([*dataset.tasks, *own]))

    # The list

    def key(self) -> tuple[Any, ...]:
        """Returns a value that changes whenever `episodes` would change."""
        return self.dataset, self.marks.all(), self.marks.revision, self.jobs.revision

    def episodes(self) -> dict[str, Any]:
        """Returns the body of `GET /api/episodes`: every column has one entry per episode. Events and disagreement are null until they are
        computed."""
        dataset, numbers = self.dataset, self.rows.numbers
        tasks = {task: place for place, task in enumerate(self._tasks(dataset))}
        marks, later = self.marks.all(), self._later(dataset)
        arrays, (kind, kinds) = dataset.meta.arrays, dataset.meta.fact("kind")
        places = arrays.places(numbers)
        first_tasks, names = ([tasks.get(next(iter(words), "")) for words in arrays.tasks], [None if k is None else str(k) for k in kinds])
        models = {
            model: {head: {**columns, "events": later["models"].get(model, {}).get(head, {}).get("events")} for head, columns in by.items()}
            for model, by in self._ends.items()
        }
        return {
            "index": list(numbers),
            "task": [first_tasks[code] for code in arrays.task[places].tolist()],
            "length": self.rows.length.tolist(),
            "kind": [names[code] for code in kind[places].tolist()],
            "annotated": {h: [int(bool(s)) for s in segments_of(dataset, h, numbers).values()] for h in self._heads(dataset)},
            "mark": [marks[n].kind if n in marks else None for n in numbers],
            "note": {str(n): mark.note for n, mark in marks.items() if mark.note},
            "weight_kept": self._mean_weight,
            **later,
            "models": models,
        }

    def events(self, wait_s: float | int = 0) -> dict[str, Any]:
        """Returns the body of `GET /api/events`: the columns that are computed in the background. It waits at most `wait_s` seconds;
        `ready` is false while some are missing."""
        self.jobs.wait(wait_s)
        return self._later(self.dataset)

    def _later(self, dataset: LeRobotDataset) -> dict[str, Any]:
        ready, results = self.jobs.wait(0.0), self._results
        code, outcomes = dataset.meta.fact("success")
        by_meta = [success_in({"success": outcomes[each]}) for each in code[dataset.meta.arrays.places(self.rows.numbers)].tolist()]
        return {
            "ready": ready,
            "success": [
                results.success.get(n) if success is None else success for n, success in zip(self.rows.numbers, by_meta, strict=True)
            ],
            "disagreement": None if results.disagreement is None else rounded(np.array(results.disagreement)),
            "disagreement_of": results.disagreement_of,
            "models": {m: {h: {"events": results.events.get(m, {}).get(h)} for h in heads} for m, heads in self._curves.items()},
        }

    def _compare(self, dataset: LeRobotDataset) -> None:
        """Computes the disagreement; it is computed again if it depends on an annotation that changed."""

        def count() -> None:
            truth, results = self._results.truth, self._results
            stages = dataset.stages.get("sparse")
            if truth is None and len(self._curves) == 1 and stages is not None:
                success = dict(zip(self.rows.numbers, self._later(dataset)["success"], strict=True))
                truth = annotated_progress(segments_of(dataset, "sparse", self.rows.numbers), stages, self.rows, success.get)
            pair = curves_to_compare(self._curves, truth)
            if pair is not None:
                results.disagree(pair[0], pair[1](self.rows))

        if len(self._curves) < 2 or self._results.disagreement is None:
            self.jobs.submit(count)

    # One episode

    def read(self, number: int) -> Episode:
        """Reads the episode with this index. KeyError for one that is not shown, DataError as `LeRobotDataset.episode`."""
        self.require(number)
        return self.dataset.episode(number)

    def require(self, number: Any) -> int:
        """Returns the index of an episode that is shown; KeyError for anything else."""
        if type(number) is not int or number not in self._indices:
            raise KeyError(number)
        return number

    def episode(self, number: int) -> dict[str, Any]:
        """Returns the body of `GET /api/episodes/{n}` without the addresses of its videos. KeyError for an episode that is not shown."""
        episode, dataset, mark = self.read(number), self.dataset, self.marks.get(number)
        return {
            "index": number,
            "task": episode.task,
            "fps": episode.fps,
            "length": episode.length,
            "success": episode.success,
            "facts": json_value(episode.facts),
            "mark": mark.kind,
            "note": mark.note,
            "row": episode.row,
            "heads": {head: self._head(episode, dataset, head, about) for head, about in self._heads(dataset).items()},
            "weight": rounded(self._weight(episode)) if self.weights is not None else None,
            "events": {
                name: {head: [json_value(vars(event)) for event in find_events(curve, episode.fps)] for head, curve in by.items()}
                for name, by in self.curves(episode).items()
            },
        }

    def curves(self, episode: Episode) -> dict[str, dict[str, Float[np.ndarray, "T"]]]:
        """Returns model -> head -> its curve of this episode."""
        span = slice(episode.row, episode.row + episode.length)
        return {name: {head: curve[span] for head, curve in heads.items()} for name, heads in self._curves.items()}

    def head_curves(self, episode: Episode, stages: Mapping[str, Stages], head: str) -> dict[str, Curve]:
        """Returns model -> its curve of this episode and head, for the models that have the head."""
        tables = {name: model.table for name, model in self.models.items() if head in model.table.heads}
        return {name: curve_of(table, episode, stages.get(head), head) for name, table in tables.items()}

    def _weight(self, episode: Episode) -> np.ndarray:
        assert self.weights is not None
        return self.weights[1][episode.row : episode.row + episode.length]

    def _head(self, episode: Episode, dataset: LeRobotDataset, head: str, about: Mapping[str, Any]) -> dict[str, Any]:
        stages, segments = dataset.stages, episode.segments.get(head, ())
        view = episode_view(episode, {head: self.head_curves(episode, stages, head)}, stages, sampled=False).heads[head]
        names = list(dict.fromkeys([*about["names"], *view.stage_names]))
        place = np.array([names.index(name) for name in view.stage_names] or [0])
        out: dict[str, Any] = {
            "names": names,
            "colours": _colours(len(names)),
            "curves": {name: rounded(curve) for name, curve in view.curves.items()},
            "probabilities": {name: integers(_likeliest(each, place)) for name, each in view.probabilities.items()},
            "truth_source": view.truth_source,
            "segments": _as_objects(segments),
            "version": version_of(segments),
        }
        if view.truth is not None:
            out["truth"] = rounded(view.truth)
        if view.true_stage is not None:
            out["true_stage"] = integers(np.where(view.true_stage < 0, -1, place[np.clip(view.true_stage, 0, len(place) - 1)]))
        return out

    # What a person changes

    def save(self, number: int, body: Mapping[str, Any]) -> dict[str, Any]:
        """Handles `PUT /api/episodes/{n}/segments`. KeyError for an unknown episode, FaultyError for segments that do not pass the checks,
        ChangedError if the annotation on disk is not the one that the page began with, PermissionError for a dataset that cannot be
        edited."""
        with self._saving:
            episode, dataset = self.read(number), self.dataset
            if why := why_not_editable(dataset):
                raise PermissionError(why)
            head, names = body.get("head"), body.get("names")
            if head not in HEADS:
                raise FaultyError([f"the head should be {' or '.join(HEADS)}, got {shown(head)}"])
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
                dataset_names=stage_names(dataset).get(head, ()),
                names=tuple(names) if names else None,
                length=episode.length,
                fps=episode.fps,
                success=episode.success,
            )
            segments, names, repairs = check_edit(edit, store_folder(dataset))
            if segments != before or (segments and names != edit.dataset_names):
                write(dataset.root, edit, segments, names)
        return {**self.stored_annotation(number, head), "heads": self._heads(self.dataset), "repairs": repairs}

    def stored_annotation(self, number: int, head: str) -> dict[str, Any]:
        """Returns the annotation as it is on disk now, and its version."""
        segments = self.dataset.meta.episodes[number].readable_segments.get(head, ())
        return {"segments": _as_objects(segments), "version": version_of(segments)}

    def mark(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """Handles `PUT /api/marks`. KeyError for an unknown episode, DataError for an unknown kind of mark."""
        number = self.require(body.get("episode"))
        kind, note = body.get("mark"), body.get("note", "")
        if not isinstance(kind, str | None) or not isinstance(note, str):
            raise DataError("a mark has a word and a note, both text")
        mark = Mark(kind, note)
        self.marks.set(number, mark)
        return {"episode": number, "mark": mark.kind, "note": mark.note}

    def marked(self) -> list[dict[str, Any]]:
        """Returns one row per mark, for the downloads."""
        columns_by_name, place = self.episodes(), {number: i for i, number in enumerate(self.rows.numbers)}
        tasks = self._tasks(self.dataset)
        finals = next((columns["final"] for heads in columns_by_name["models"].values() for columns in heads.values()), None)
        return [
            {
                "episode": number,
                "mark": mark.kind,
                "note": mark.note,
                "task": tasks[columns_by_name["task"][place[number]]],
                "length": columns_by_name["length"][place[number]],
                "final_progress": finals[place[number]] if finals is not None else None,
                "success": columns_by_name["success"][place[number]],
            }
            for number, mark in self.marks.all().items()
            if number in place
        ]


def _provenance(table: ProgressTable) -> dict[str, str]:
    return {key: value for key in MADE if (value := table.made_by.get(key)) is not None}


def _stage_names(curve: Curve) -> Sequence[str]:
    """Returns what the model calls its stages, if it has more than one."""
    return curve.stage_names if len(curve.stage_names) > 1 else ()


def _colours(count: int) -> list[str]:
    return [STAGE_COLOURS[k % len(STAGE_COLOURS)].lower() for k in range(count)]


def _likeliest(probability: Float[np.ndarray, "T K"], place: np.ndarray) -> np.ndarray:
    """Returns the most likely stage of each frame by its number on the page, -1 where unknown."""
    is_known = ~np.isnan(probability).any(axis=1)
    return np.where(is_known, place[np.nan_to_num(probability).argmax(axis=1)], -1)


def _as_objects(segments: Sequence[Segment]) -> list[dict[str, Any]]:
    return [{"name": each.name, "start": each.start, "stop": each.stop} for each in segments]
