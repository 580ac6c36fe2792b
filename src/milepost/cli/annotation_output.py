"""The destination of annotations: the dataset, a copy of its meta/, the Hub; and figures of them. Nothing is replaced without
--overwrite."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from milepost import annotation, datasets, figures, metrics
from milepost.cli.progress_io import warn_of_missing_letters
from milepost.core import HEADS, DataError, Episode, Segment, Tick, count_noun, require_writable, shortlist

Answers: TypeAlias = "Mapping[str, Mapping[int, annotation.Answer]]"
"""Head -> episode -> its answer."""


@dataclass(frozen=True, eq=False)
class Target:
    """The destination: the dataset itself, or a copy of its meta/ in `copy`; and the Hub if `push`: the dataset's own repository, or
    `repo`."""

    dataset: datasets.LeRobotDataset
    copy: Path | None = None
    push: bool = False
    repo: str | None = None

    def require(self) -> None:
        """Raises DataError now, before hours of work, if the result could not be written afterwards."""
        if self.repo is not None and not self.push:
            raise DataError("--output-repo-id says where to upload; without --push-to-hub nothing is uploaded")
        if self.copy is None and self.dataset.is_local:
            datasets.require_editable(self.dataset.root)
        elif self.copy is None and not self.push:
            raise DataError(
                f"{self.dataset.name} is in {datasets.cache_name(self.dataset.root)}, which is never written into: give --output-path, or "
                "--push-to-hub"
            )
        if self.copy is not None:
            _require_copy(self.copy, self.dataset)
        if self.push:
            datasets.require_same_dataset(self.dataset.root, self.repository)

    @property
    def repository(self) -> str:
        """Returns the Hub repository to upload to. DataError for a local dataset without `repo`."""
        if self.repo is None and self.dataset.is_local:
            raise DataError("a folder does not say where on the Hub it belongs: give --output-repo-id owner/name")
        return self.repo or self.dataset.name

    @contextmanager
    def folder(self) -> Iterator[Path]:
        """Yields a folder with meta/ that may be edited. A folder that is only for the Hub is temporary."""
        if self.copy is None and self.dataset.is_local:
            yield self.dataset.root
        elif self.copy is not None:
            if not self.copy.exists():
                datasets.copy_meta(self.dataset.root, self.copy)
            yield self.copy
        else:
            with tempfile.TemporaryDirectory() as name:
                datasets.copy_meta(self.dataset.root, Path(name) / "dataset")
                yield Path(name) / "dataset"


def _require_copy(folder: Path, dataset: datasets.LeRobotDataset) -> None:
    """Raises DataError if the folder has something other than a copy of this dataset."""
    if not folder.exists():
        require_writable(folder.absolute().parent)
        return
    there, here = (datasets.read_metadata(root).episodes.values() for root in (datasets.require_editable(folder), dataset.root))
    if [(each.index, each.length) for each in there] != [(each.index, each.length) for each in here]:
        raise DataError(f"{folder} is another dataset than {dataset.name}; give --output-path a new name")


def accepted_segments(answers: Answers, requested: Mapping[str, Sequence[int]]) -> dict[int, dict[str, Any]]:
    """Returns episode -> head -> segments, for the requested episodes."""
    segments: dict[int, dict[str, Any]] = {}
    for head, numbers in requested.items():
        for number in numbers:
            answer = answers[head].get(number)
            if answer is not None and answer.segments:
                segments.setdefault(number, {})[head] = answer.segments
    return dict(sorted(segments.items()))


def require_no_conflict(
    dataset: datasets.LeRobotDataset,
    accepted: datasets.Annotations,
    lists: Mapping[str, annotation.SubtaskList],
    *,
    requested: Mapping[str, Sequence[int]],
    overwrite: bool,
) -> None:
    """Raises DataError if the dataset has other annotations in these places, or annotations with stages that are not on the lists.

    accepted: the answers so far. An equal annotation in the dataset is no conflict: the same command continues.
    """
    existing = annotation.read_annotations(dataset.root)
    for head, subtasks in lists.items():
        ours = set(requested[head])
        other = [n for n in requested[head] if (old := existing.get(n, {}).get(head)) and tuple(old) != accepted.get(n, {}).get(head)]
        if other and not overwrite:
            raise DataError(
                f"the dataset has {head} annotations of episodes {shortlist(other)}, which would be replaced: give --skip-existing to keep "
                "them, or --overwrite"
            )
        stay = [n for n, heads in existing.items() if n not in ours and {s.name for s in heads.get(head, ())} - set(subtasks.names)]
        if stay:
            names = sorted({s.name for n in stay for s in existing[n][head]} - set(subtasks.names))
            other_tasks = {_task(dataset, n) for n in stay} - {_task(dataset, n) for n in ours}
            advice = (
                "they are of other tasks, and a dataset has one list of stages that every finished attempt goes through: make a dataset "
                "of its own of each task (LeRobot: lerobot-edit-dataset, delete_episodes or split) and annotate each with its stages"
                if other_tasks
                else "if every attempt goes through them, add them to the list and annotate all episodes anew, with --overwrite"
            )
            raise DataError(
                f"the {head} annotations of episodes {shortlist(stay)}, which stay, have stages that are not on the list: "
                f"{', '.join(names)}; {advice}"
            )


def in_the_way(
    dataset: datasets.LeRobotDataset,
    accepted: datasets.Annotations,
    lists: Mapping[str, annotation.SubtaskList],
    *,
    requested: Mapping[str, Sequence[int]],
) -> str:
    """Returns "", or why these annotations cannot be written: an episode without an answer keeps stages that are not on the list."""
    existing = annotation.read_annotations(dataset.root)
    for head, subtasks in lists.items():
        without = [n for n in requested[head] if not accepted.get(n, {}).get(head)]
        stay = [n for n in without if {s.name for s in existing.get(n, {}).get(head, ())} - set(subtasks.names)]
        if stay:
            return (
                f"nothing is written into {dataset.name}: {count_noun(len(stay), 'episode')} without a {head} answer ({shortlist(stay)}) "
                "would keep stages that are not on the new list, and a dataset has one list. The other answers stay in the store. Ask "
                "again (--retry-failed asks those that failed), or annotate a dataset without these episodes "
                f"({datasets.leave_out_verb(dataset.version)} --without)"
            )
    return ""


def _task(dataset: datasets.LeRobotDataset, number: int) -> tuple[str, ...]:
    return tuple(dataset.meta.episodes[number].tasks)


def write_out(
    target: Target,
    annotations: datasets.Annotations,
    lists: Mapping[str, annotation.SubtaskList],
    *,
    subtask_index: bool,
    keep_language: bool = True,
) -> dict[str, Any]:
    """Writes the annotations; returns the files, their folder, and the address if they were uploaded.

    keep_language: write the subtasks of the other episodes too, where they are the dataset's stages. A copy of meta/ has no data to read
    them from.
    """
    with target.folder() as folder:
        if keep_language and datasets.read_metadata(folder).from_language:
            annotations = datasets.with_language(annotations, target.dataset.meta)
        names = {head: subtasks.names for head, subtasks in lists.items()}
        # the verb has asked before
        result = datasets.write_annotations(folder, annotations, names=names, overwrite=True, keep_language=False)
        files = list(result.files)
        if subtask_index:
            if target.copy is not None or not target.dataset.is_local:
                raise DataError("--subtask-index rewrites data/ and needs a local dataset of one's own, not a copy of meta/")
            head = "dense" if any("dense" in heads for heads in annotations.values()) else "sparse"
            files += datasets.write_subtask_index(folder, annotations, head)
        address = None
        if target.push:
            changed = (*datasets.ANNOTATION_FILES, *(datasets.SUBTASK_FILES if subtask_index else ()))
            address = datasets.upload_dataset_files(folder, target.repository, changed)
        permanent = target.copy is not None or target.dataset.is_local
        return {"folder": str(folder) if permanent else None, "written": files, "uploaded": address}


def read_corrections(
    path: Path, dataset: datasets.LeRobotDataset, lists: Mapping[str, annotation.SubtaskList]
) -> dict[int, dict[str, tuple[Segment, ...]]]:
    """Reads a person's file. Where a head's list of stages is known, the checks are those of a model's answer. DataError names every
    fault."""
    numbers = dataset.episode_indices
    names = {head: subtasks.names for head, subtasks in lists.items()}
    by_episode = annotation.read_file(path, fps=dataset.fps, lengths={n: dataset.length(n) for n in numbers}, names=names)
    faults = []
    success = datasets.successes(dataset.files, dataset.meta, sorted(by_episode)) if lists else {}
    for number, heads in by_episode.items():
        for head, segments in heads.items():
            if head not in lists:
                continue
            checked = annotation.check_segments(segments, lists[head], dataset.length(number), dataset.fps, success=success[number])
            faults += [f"episode {number}, {head}: {fault.message}" for fault in checked.faults if fault.fatal]
            heads[head] = checked.segments or segments
    if faults:
        more = f"\n  and {len(faults) - 20} more" if len(faults) > 20 else ""
        raise DataError(
            f"{path} does not fit the stages (another list: --sparse-file, --dense-file):\n  " + "\n  ".join(faults[:20]) + more
        )
    if not by_episode:
        raise DataError(f"{path} has no segment")
    return by_episode


# Figures


def draw(
    dataset: datasets.LeRobotDataset,
    annotations: datasets.Annotations,
    answers: Answers,
    *,
    lists: Mapping[str, annotation.SubtaskList],
    camera: str | None,
    drawings: Mapping[int, Path],
    tick: Tick,
) -> None:
    """Draws the annotations of these episodes. drawings: episode -> its file."""
    words = set[str]()
    for count, (number, path) in enumerate(drawings.items(), start=1):
        episode = dataset.episode(number)
        heads = {head: annotations[number][head] for head in HEADS if annotations[number].get(head)}
        timelines = {
            head: _timeline(
                episode, segments, answers.get(head, {}).get(number), names=_names(head, dataset, lists, annotations), camera=camera
            )
            for head, segments in heads.items()
        }
        success = {True: " (success)", False: " (failure)", None: ""}[episode.success]
        figure = figures.annotation_figure(
            figures.AnnotationView(f"episode {number}: {episode.task}{success}", episode.fps, episode.length, timelines)
        )
        datasets.write_drawing(path, figures.png(figure), dataset)
        words |= set(figures.texts_of(figure))
        tick(count, len(drawings))
    warn_of_missing_letters(words)


def disagreements(answers: Answers) -> dict[int, float]:
    """Returns episode -> the largest difference of its repeats over the heads; an episode that was asked once is left out."""
    largest: dict[int, float] = {}
    for each in answers.values():
        for number, answer in each.items():
            if answer.notes.get("disagreement") is not None:
                largest[number] = max(largest.get(number, 0.0), float(answer.notes["disagreement"]))
    return largest


def _names(
    head: str, dataset: datasets.LeRobotDataset, lists: Mapping[str, annotation.SubtaskList], annotations: datasets.Annotations
) -> tuple[str, ...]:
    """Returns all stages in their order, so that each has one colour in all figures: the dataset's, else the list's, then all other
    names."""
    stages = dataset.stages.get(head)
    listed = (*(stages.names if stages is not None else ()), *(lists[head].names if head in lists else ()))
    used = (segment.name for heads in annotations.values() for segment in heads.get(head, ()))
    return tuple(dict.fromkeys([*listed, *used]))


def _timeline(
    episode: Episode, segments: Sequence[Segment], answer: annotation.Answer | None, *, names: Sequence[str], camera: str | None
) -> figures.HeadTimeline:
    """Returns the timeline, with the repeats if this annotation is their result."""
    at = np.array([min(figures.middle_frame(segment), episode.length - 1) for segment in segments])
    frames = episode.camera(camera)[at] if camera is not None else None
    if answer is None or "each" not in answer.notes or tuple(segments) != answer.segments:
        return figures.HeadTimeline(segments, names, frames)
    repeats = [None if each is None else tuple(Segment(*segment) for segment in each) for each in answer.notes["each"]]
    ours = metrics.boundaries(segments, episode.length)
    places: dict[int, list[int]] = {boundary.frame: [boundary.frame] for boundary in ours}
    for each in repeats:
        for own, theirs in metrics.match_boundaries(ours, metrics.boundaries(each, episode.length)) if each is not None else ():
            places[own.frame].append(theirs.frame)
    note = (
        f"{answer.notes['support']} of {answer.notes['repeats']} repeats have this order of stages; "
        f"two of them differ on {answer.notes['disagreement']:.0%} of the frames{' (a failed one on all)' if None in repeats else ''}"
    )
    return figures.HeadTimeline(segments, names, frames, [(frame, min(all_), max(all_)) for frame, all_ in places.items()], repeats, note)
