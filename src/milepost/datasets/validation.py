"""Validates a LeRobot dataset: `validate` reads raw tables and returns a report. It repairs and writes nothing.

Bad content never raises; it becomes a Finding. DataError is raised only if there is no dataset at all (no folder, no meta/info.json).
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa

from milepost.core import (
    HEADS,
    SUCCESS,
    Attempt,
    DataError,
    Stages,
    alike_names,
    annotated_stages,
    contradictions,
    count_noun,
    doubts,
    ends_well,
    has_words,
    require_plain_file,
    shown,
)
from milepost.datasets.behaviour import Behaviour
from milepost.datasets.columns import ROWS, check_columns
from milepost.datasets.episode_table import EpisodeTable
from milepost.datasets.features import codec, image_size, width
from milepost.datasets.findings import Expected, Finding, Severity, check_rows, check_segments, joined_findings
from milepost.datasets.footage import Footage, Look
from milepost.datasets.frames import default_cameras
from milepost.datasets.hub import Files, find_files
from milepost.datasets.language_checks import check_language
from milepost.datasets.language_rows import LANGUAGE
from milepost.datasets.metadata import PROPORTIONS, STATS, SUPPORTED, has_proportions, read_proportions, scan_metadata
from milepost.datasets.parquet import open_parquet, read_parquet, to_numpy
from milepost.datasets.placement import TENTH
from milepost.datasets.records import EpisodeRecord
from milepost.datasets.report import Camera, DatasetReport
from milepost.datasets.rows import Settled, data_files, settle
from milepost.datasets.sound_rows import are_sound

_MEASURED = ("observation.state", "action", SUCCESS)
_COUNTS = ("total_episodes", "total_frames", "total_tasks")


def validate(folder_or_repo: str | Path, *, quick: bool = False, deep: bool = False, revision: str | None = None) -> DatasetReport:
    """Validates a dataset: meta/, every data file once, every video's index, and the first, middle and last image of each episode.

    quick: decode no image. deep: decode every image. Of a Hub dataset, data files are downloaded; of its videos only those in the cache are
    checked. Raises DataError only if this is no LeRobot dataset: no such folder or repository, or no meta/info.json.

    "dots" is what `milepost.testing.write_example("dots")` writes: six episodes and a progress file.

    >>> report = milepost.validate("dots")
    >>> report.episodes, report.frames, report.findings
    (6, 171, ())
    """
    if quick and deep:
        raise ValueError("quick and deep exclude each other")
    files = find_files(folder_or_repo, revision)
    return _Validation(files, "none" if quick else "all" if deep else "some").report()


class _Validation:
    """The state of one validation: what has been read, and the findings so far."""

    def __init__(self, files: Files, look: Look) -> None:
        self.files, self.look = files, look
        self.meta, _ = scan_metadata(files.root)
        self.info, self.features, self.fps = self.meta.info, self.meta.features, self.meta.fps
        self.findings: list[Finding] = list(self.meta.findings)
        self.many: list[tuple[str, Severity, str, str]] = []
        self.records: Collection[EpisodeRecord] = self.meta.episodes.values()
        self.arrays = self.meta.arrays
        self.judged = self.succeeded = 0
        self.anchors: dict[int, int] = {}
        self.instructed: list[int] = []

    def report(self) -> DatasetReport:
        if self.meta.version in SUPPORTED and self.info:
            self._check_meta()
            places = settle(self.files, self.meta, everywhere=True)
            meta = self.meta if places.episodes is self.meta.episodes else replace(self.meta, episodes=places.episodes)
            self.records, self.arrays = meta.episodes.values(), meta.arrays
            self._check_data(places)
            self.findings += joined_findings(self.many)
            if self.fps:
                self.findings += Footage(self.files, meta, self.look, self.anchors, places.strays, places.unread or ()).examine()
        progress, weights = self._side_files()
        with_one = {head: records for head in HEADS if (records := [each for each in self._noted() if each.is_annotated(head)])}
        unusable = {head: sum(head in each.annotation_faults for each in records) for head, records in with_one.items()}
        version_text, cameras = self.info.get("codebase_version"), tuple(self._cameras())
        return DatasetReport(
            name=self.files.name,
            version=version_text if isinstance(version_text, str) else "unknown",
            robot=robot if isinstance(robot := self.info.get("robot_type"), str) else None,
            fps=self.fps,
            episodes=len(self.records),
            frames=int(self.arrays.length.sum()),
            tasks=self._tasks(),
            cameras=cameras,
            depth=tuple(name for name in self.meta.all_cameras if name not in {camera.name for camera in cameras}),
            state=self._width("observation.state"),
            action=self._width("action"),
            annotated={head: len(records) - unusable[head] for head, records in with_one.items()},
            unusable={head: count for head, count in unusable.items() if count},
            succeeded=self.succeeded,
            judged=self.judged,
            progress_files=progress,
            weight_files=weights,
            findings=tuple(self.findings),
        )

    def _noted(self) -> Collection[EpisodeRecord]:
        """Returns the records, none if no column of meta/ can hold an annotation."""
        return self.records if self.meta.can_have_annotations else ()

    def _tasks(self) -> dict[str, int]:
        """Returns each instruction and the number of episodes that have it."""
        counts, tasks = Counter[str](), np.bincount(self.arrays.task, minlength=len(self.arrays.tasks)).tolist()
        for words, count in zip(self.arrays.tasks, tasks, strict=True):
            for word in words:
                counts[word] += count
        return dict(counts)

    def _error(self, code: str, message: str, episode: int | None = None) -> None:
        self.findings.append(Finding(code, "error", message, episode))

    def _warn(self, code: str, message: str, episode: int | None = None) -> None:
        self.findings.append(Finding(code, "warning", message, episode))

    def _note(self, code: str, message: str) -> None:
        self.findings.append(Finding(code, "note", message))

    def _width(self, name: str) -> int | None:
        return width(self.features[name]) if name in self.features else None

    def _cameras(self) -> Iterator[Camera]:
        for name in default_cameras(self.files, self.meta):
            feature = self.features[name]
            height, width_ = image_size(feature) or (None, None)
            yield Camera(name, str(feature["dtype"]), height, width_, codec(feature))

    # meta/ ------------------------------------------------------------------------------------------------------------

    def _check_meta(self) -> None:
        totals = dict(zip(_COUNTS, (len(self.records), int(self.arrays.length.sum()), len(self.meta.tasks)), strict=True))
        for name, count in totals.items():
            listed_total = self.info.get(name)
            if name != "total_tasks" and not isinstance(listed_total, int):
                self._warn("totals", f"meta/info.json: '{name}' should be a number, it is {shown(listed_total)}")
            elif isinstance(listed_total, int) and listed_total != count:
                self._error("totals", f"info.json has {name} {shown(listed_total)}, meta/ lists {count}")
        self._check_numbers()
        self._check_places()
        self._check_stats()
        for camera in self.meta.all_cameras:
            shape = self.features[camera].get("shape")
            if image_size(self.features[camera]) is None:
                words = f"meta/info.json: the shape of camera '{camera}' should be three whole numbers, it is {shown(shape)}"
                self._error("shape", words) if not isinstance(shape, list) else self._warn("shape", words)
        for head in HEADS:
            self._check_head(head)
        features = self.info.get("features")
        has_index = isinstance(features, dict) and "subtask_index" in features
        if has_index and not any(any(record.lists(head)) or record.is_annotated(head) for record in self._noted() for head in HEADS):
            self._note(
                "subtask-index",
                "the stages are there as subtask_index, one for every frame, which SARM does not read: "
                "milepost annotate DATASET --from-subtask-index sparse brings them over",
            )

    def _check_stats(self) -> None:
        if self.meta.version != "v3.0":
            return
        try:
            require_plain_file(self.files.root / STATS)
        except DataError as error:
            missing = str(error).endswith(" is missing")
            self._warn("stats", f"{f'{STATS} is missing' if missing else error}: LeRobot's policies cannot normalise")

    def _check_numbers(self) -> None:
        numbers = self.arrays.number
        if np.array_equal(numbers, np.arange(len(numbers))):
            return
        absent = list(itertools.islice((n for n in range(numbers[-1]) if n not in self.meta.episodes), 9))
        what = f"{len(numbers)} are numbered {numbers[0]} to {numbers[-1]}, without {', '.join(map(str, absent))}"
        what += " and others" if numbers[-1] + 1 - len(numbers) > len(absent) else ""
        if self.meta.version == "v2.1":
            self._note("episode-numbers", f"episodes: {what}; each has files of its own, so nothing is amiss")
        else:
            self._error("episode-index", f"episodes must be numbered 0 to {len(numbers) - 1} in order: {what}")

    def _check_places(self) -> None:
        """Checks the rows and tasks of each entry in meta/."""
        row, task_words = 0, set(self.meta.tasks.values())
        if isinstance(self.meta.episodes, EpisodeTable) and self._all_placed(task_words):
            return
        for record in self.records:
            start, stop = record.said_rows
            if self.meta.version == "v3.0" and (start, row + record.length if stop is None else stop) != (row, row + record.length):
                frames = count_noun(record.length, "frame")
                message = f"rows [{shown(start)}, {shown(stop)}) for {frames}, expected [{row}, {row + record.length})"
                self._error("episode-rows", f"meta/ says {message}", record.index)
            if unknown := set(record.tasks) - task_words:
                self._error("tasks", f"the task {shown(min(unknown))} is not in meta/tasks", record.index)
            row += record.length
        if blank := [record.index for record in self.records if record.tasks and not has_words(record.tasks[0])]:
            words = f"{count_noun(len(blank), 'episode')} without an instruction (a blank task), first episode {blank[0]}"
            self._warn("blank-task", f"{words}: models that read instructions leave them unknown, or take one with --task")

    def _all_placed(self, task_words: set[str]) -> bool:
        """Returns whether the entries of a table follow one another, and all have tasks of meta/tasks, in words."""
        arrays, tasks = self.arrays, self.arrays.tasks
        follow = np.array_equal(arrays.row, np.cumsum(arrays.length) - arrays.length)
        return follow and all(set(words) <= task_words and (not words or has_words(words[0])) for words in tasks)

    def _check_head(self, head: str) -> None:
        try:
            proportions = read_proportions(self.files.root, head)
        except DataError as error:
            proportions = None
            self._error("proportions", str(error))
        if proportions is not None and not (proportions and 0.999 < sum(proportions.values()) < 1.001 and min(proportions.values()) >= 0):
            self._warn("proportions", f"the {head} proportions should be >= 0 and sum to 1, they sum to {sum(proportions.values()):.4f}")
        annotated_records = [record for record in self._noted() if any(record.lists(head))]
        if not annotated_records:
            return
        if proportions is None and not has_proportions(self.files.root, head):
            self._note("proportions", f"there are {head} annotations but no {PROPORTIONS.format(head=head)}")
        for record in self.records:
            if not any(record.lists(head)):
                self._warn("not-annotated", f"no {head} annotation, while {len(annotated_records)} episodes have one", record.index)
            elif record.is_older(head):
                where = f"its {head} annotation stands in the columns subtask_* alone, and here are {head}_subtask_* too"
                self._warn("not-annotated", f"{where}: LeRobot reads those, and finds none", record.index)
            stage_names = None if proportions is None else tuple(proportions)
            self.findings += check_segments(head, *record.lists(head), length=record.length, stage_names=stage_names, episode=record.index)
            if head in record.clashes:
                self._warn("segment-times", f"{head}: {record.clashes[head]}", record.index)
        self._check_meaning(head, annotated_records, proportions)

    def _check_meaning(
        self, head: str, annotated_records: Sequence[EpisodeRecord], proportions: Mapping[str, float] | None, severity: Severity = "error"
    ) -> None:
        """Adds the contradictions that training refuses, and the doubts that it warns of."""
        sound = [
            Attempt(r.index, next(iter(r.tasks), ""), s, self._success(r)) for r in annotated_records if (s := r.sound_segments.get(head))
        ]
        listed_stages = Stages.from_proportions(proportions) if proportions and sum(proportions.values()) > 0 else None
        attempts = [each for each in sound if each.order and (listed_stages is None or set(each.order) <= set(listed_stages.names))]
        if not attempts:
            return
        stages = listed_stages or annotated_stages(attempts)
        wrong = contradictions(attempts, stages.names)
        for words in wrong:
            self.findings.append(Finding("stages", severity, f"{head}: {words}"))
        for words in alike_names(attempts, stages.names) if wrong else doubts(attempts, stages):
            self._warn("stages", f"{head}: {words}")

    def _success(self, record: EpisodeRecord) -> bool | None:
        """Returns the success in meta/.

        If the data has a success column, an episode counts as a failure here: then nothing is concluded from the stage in which it ends.
        """
        return False if record.success is None and SUCCESS in self.features else record.success

    # data/ ------------------------------------------------------------------------------------------------------------

    def _check_data(self, places: Settled) -> None:
        by_file = {name: own[self.arrays.length[own] > 0] for name, own in self.arrays.by_file()}
        for number in self.arrays.number[by_file.pop("", np.empty(0, np.int64))].tolist():
            if not places.episodes[number].fault:
                self._error("data-file", "meta/ does not say where its rows are, and no data file has them", number)
        for message in places.warnings:
            self._warn("places", message)
        behaviour = Behaviour(self.files.root, self.meta, self.arrays)
        for name, own in sorted((name, own) for name, own in by_file.items() if len(own)):
            numbers = self.arrays.number[own].tolist()
            try:
                columns = self._read_columns(name)
            except DataError as error:
                self._error("data-file", str(error), numbers[0] if len(numbers) == 1 else None)
                continue
            behaviour.take(columns)
            if self._is_sound(columns, own, places):
                self._judge_all(columns.get(SUCCESS), own)
            else:
                self._check_file(name, columns, [places.episodes[number] for number in numbers], places.by_position)
        for name in sorted(set(data_files(self.files)) - {name for name, own in by_file.items() if len(own)}):
            self._check_stray(name)
        self.findings.extend(behaviour.results())
        if LANGUAGE in self.features:
            self._check_language()
        if self.instructed:
            first = f"{count_noun(len(self.instructed), 'episode')} with several tasks, first episode {self.instructed[0]}"
            self._note("several-tasks", f"{first}; models that take one are given the first, `Episode.instructions` has all")

    def _check_language(self) -> None:
        """Checks the language columns, and what their subtasks say of the task where they are the annotation."""
        self.findings += check_language(self.files, self.features, self.records)
        if counting := [record for record in self.records if record.from_language and record.is_annotated("sparse")]:
            self._check_meaning("sparse", counting, None, severity="warning")

    def _check_stray(self, name: str) -> None:
        """Checks a file that no episode needs: LeRobot opens it all the same."""
        try:
            with open_parquet(self.files.path(name)) as file:
                rows = file.metadata.num_rows
        except DataError as error:
            return self._error("stray-file", f"{error}; LeRobot opens every file in data/ and fails")
        if not rows:
            return self._error("empty-file", f"{name} has no rows: LeRobot opens every file in data/ and fails; remove it")
        return self._warn("stray-file", f"{name} belongs to no episode")

    def _read_columns(self, name: str) -> dict[str, np.ndarray]:
        """Returns the checked number columns of one data file; a column that is not numbers becomes a finding."""
        path = self.files.path(name)
        with open_parquet(path) as file:
            schema = file.schema_arrow
        names = [column for column in (*ROWS, *_MEASURED) if column in schema.names]
        for code, severity, what in check_columns(schema, self.features, strict=self.meta.version == "v3.0"):
            self.many.append((code, severity, what, name))
        table = read_parquet(path, names)
        columns = {}
        for column in names:
            try:
                values = to_numpy(column, table[column])
            except DataError as error:
                self._error("columns", f"{name}: {error}")
                continue
            if values is None or (column in ROWS and values.size != len(values)):
                self._error("columns", f"{name}: column '{column}' holds {table[column].type}, expected numbers")
                continue
            columns[column] = values
            count = self._width(column)
            is_list = pa.types.is_list(table[column].type) or pa.types.is_large_list(table[column].type)  # of others the footer tells
            if is_list and count is not None and len(values) and values.size != count * len(values):
                what = f"has {values.size // len(values)} numbers a frame in '{column}', info.json says {count}"
                self.many.append(("column-types", "error", what, name))
        return columns

    def _check_file(self, name: str, columns: Mapping[str, np.ndarray], records: Sequence[EpisodeRecord], by_position: bool) -> None:
        count = max((len(values) for values in columns.values()), default=0)
        owner = columns["episode_index"].reshape(-1) if "episode_index" in columns else np.full(count, records[0].index)
        order = np.argsort(owner, kind="stable")
        for record in records:
            first, last = np.searchsorted(owner[order], [record.index, record.index + 1])
            episode_columns = {column: values[order[first:last]] for column, values in columns.items()}
            expected = Expected(record.index, record.length, None if by_position else record.row, self.fps or 1.0, len(self.meta.tasks))
            self.findings += check_rows({n: v for n, v in episode_columns.items() if self.fps or n != "timestamp"}, expected)
            self._judge(record, episode_columns.get(SUCCESS))
            self._note_times(record, episode_columns)
        strangers = np.setdiff1d(owner, self.arrays.number)
        if len(strangers):
            rows = int(np.isin(owner, strangers).sum())
            numbers = ", ".join(f"{number:.10g}" for number in strangers[:9])
            self._error("stray-rows", f"{name}: {rows} rows belong to episodes that meta/ does not list: {numbers}")

    def _is_sound(self, columns: Mapping[str, np.ndarray], own: np.ndarray, places: Settled) -> bool:
        """Returns whether nothing is to be said of a file's rows, which are those of the episodes at `own`."""
        if not isinstance(places.episodes, EpisodeTable) or any(each.get("dtype") == "video" for each in self.features.values()):
            return False  # the check of videos needs the times of each episode
        return are_sound(columns, self.arrays, own, fps=self.fps, tasks=len(self.meta.tasks))

    def _judge_all(self, column: np.ndarray | None, own: np.ndarray) -> None:
        """Counts the outcomes of a file's episodes, of which nothing else is to be said."""
        code, values = self.meta.fact("success")
        judged = np.array([success is not None for success in values])[code[own]]
        succeeded = np.array([bool(success) for success in values])[code[own]]
        if column is not None and column.size:
            last = np.cumsum(self.arrays.length[own]) - 1
            succeeded |= ~judged & column.reshape(len(column), -1)[last].any(axis=1)
            judged[:] = True
        self.judged, self.succeeded = self.judged + int(judged.sum()), self.succeeded + int(succeeded.sum())

    def _judge(self, record: EpisodeRecord, column: np.ndarray | None) -> None:
        success = ends_well(column) if record.success is None and column is not None and column.size else record.success
        self.judged, self.succeeded = self.judged + (success is not None), self.succeeded + bool(success)

    def _note_times(self, record: EpisodeRecord, columns: Mapping[str, np.ndarray]) -> None:
        """Stores what the check of videos needs from the rows, and whether they have several tasks."""
        task, times = columns.get("task_index"), columns.get("timestamp")
        if task is not None and task.size and (task != task.reshape(-1)[0]).any():
            self.instructed.append(record.index)
        if times is not None and times.size and self.fps and np.isfinite(times).all():
            at = times.reshape(-1).astype(np.float64) * self.fps
            nearest = np.rint(at)
            if (np.abs(at - nearest) <= TENTH).all() and nearest[0] >= 0 and (np.diff(nearest) > 0).all():
                self.anchors[record.index] = int(nearest[-1]) + 1

    # beside it --------------------------------------------------------------------------------------------------------

    def _side_files(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Returns the names of the progress files and of the weights files in the dataset's folder."""
        progress, weights = [], []
        for path in self.files.beside("*.parquet"):
            try:
                with open_parquet(path) as file:
                    names, rows = file.schema_arrow.names, file.metadata.num_rows
            except DataError as error:
                self._warn("side-file", str(error))
                continue
            if any(name.startswith("progress_") for name in names):
                progress.append(path.name)
                frames = int(self.arrays.length.sum())
                if rows != frames:
                    self._note("progress-rows", f"{path.name} has {rows} of the dataset's {frames} frames")
            elif {"index", "weight"} <= set(names):
                weights.append(path.name)
        return tuple(progress), tuple(weights)
