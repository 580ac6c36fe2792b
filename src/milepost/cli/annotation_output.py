"""Where annotations go: into the dataset, a copy of its meta/, the Hub; and pictures of them. Refuses to replace what nobody asked to."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from milepost import annotation, datasets, figures, metrics
from milepost.cli.drawings import write_drawing
from milepost.cli.readings import warn_of_boxes
from milepost.core import DataError, Episode, Segment, Tick, require_writable

Answers: TypeAlias = "Mapping[str, Mapping[int, annotation.Answer]]"
"""Head -> episode -> its answer."""


@dataclass(frozen=True, eq=False)
class Target:
    """The dataset itself, or a copy of its meta/ in `copy`; then the Hub, if asked: the dataset's own repository, or `repo`."""

    dataset: datasets.LeRobotDataset
    copy: Path | None = None
    push: bool = False
    repo: str | None = None

    def require(self) -> None:
        """DataError now, before hours of work, if it could not be written there afterwards."""
        if self.repo is not None and not self.push:
            raise DataError("--output-repo-id says where to upload; without --push-to-hub nothing is uploaded")
        if self.copy is None and self.dataset.is_local:
            datasets.require_editable(self.dataset.root)
        elif self.copy is None and not self.push:
            raise DataError(
                f"a Hub dataset is never written into ({self.dataset.name} is in the Hub's cache): give --output-path, or --push-to-hub"
            )
        if self.copy is not None:
            _require_copy(self.copy, self.dataset)
        if self.push:
            datasets.require_same_dataset(self.dataset.root, self.repository)

    @property
    def repository(self) -> str:
        if self.repo is None and self.dataset.is_local:
            raise DataError("a folder does not say where on the Hub it belongs: give --output-repo-id owner/name")
        return self.repo or self.dataset.name

    @contextmanager
    def folder(self) -> Iterator[Path]:
        """A folder with meta/ that may be edited; one for the Hub alone is gone afterwards."""
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
    """DataError if something else is there."""
    if not folder.exists():
        require_writable(folder.absolute().parent)
        return
    there, here = (datasets.read_metadata(root).episodes.values() for root in (datasets.require_editable(folder), dataset.root))
    if [(each.index, each.length) for each in there] != [(each.index, each.length) for each in here]:
        raise DataError(f"{folder} is another dataset than {dataset.name}; give --output-path a new name")


def require_no_conflict(
    dataset: datasets.LeRobotDataset,
    found: datasets.Annotations,
    lists: Mapping[str, annotation.SubtaskList],
    *,
    wanted: Mapping[str, Sequence[int]],
    overwrite: bool,
) -> None:
    """DataError if the dataset has other annotations where these would go, or of stages that are not on the lists.

    found: what is there to be written so far. An annotation that is there already is no conflict: the same command goes on.
    """
    held = annotation.read_annotations(dataset.root)
    for head, subtasks in lists.items():
        ours = set(wanted[head])
        other = [n for n in wanted[head] if (old := held.get(n, {}).get(head)) and tuple(old) != found.get(n, {}).get(head)]
        if other and not overwrite:
            raise DataError(
                f"the dataset has {head} annotations of episodes {shortlist(other)}, which would be replaced: give --skip-existing to keep "
                "them, or --overwrite"
            )
        stay = [n for n, heads in held.items() if n not in ours and {s.name for s in heads.get(head, ())} - set(subtasks.names)]
        if stay:
            names = sorted({s.name for n in stay for s in held[n][head]} - set(subtasks.names))
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


def _task(dataset: datasets.LeRobotDataset, number: int) -> tuple[str, ...]:
    return tuple(dataset.meta.episodes[number].tasks)


def shortlist(numbers: Sequence[int], most: int = 10) -> str:
    """The first of many numbers, for a message."""
    return ", ".join(map(str, numbers[:most])) + (f" and {len(numbers) - most} more" if len(numbers) > most else "")


def write_out(
    target: Target, found: datasets.Annotations, lists: Mapping[str, annotation.SubtaskList], *, subtask_index: bool
) -> dict[str, Any]:
    """Write them; returns what was written, where, and its address if it was uploaded."""
    with target.folder() as folder:
        written = datasets.write_annotations(folder, found, names={head: subtasks.names for head, subtasks in lists.items()})
        files = list(written.files)
        if subtask_index:
            if target.copy is not None or not target.dataset.is_local:
                raise DataError("--subtask-index rewrites data/ and needs a local dataset of one's own, not a copy of meta/")
            head = "dense" if any("dense" in heads for heads in found.values()) else "sparse"
            files += datasets.write_subtask_index(folder, found, head)
        address = None
        if target.push:
            changed = (*datasets.ANNOTATION_FILES, *(datasets.SUBTASK_FILES if subtask_index else ()))
            address = datasets.upload_dataset_files(folder, target.repository, changed)
        kept = target.copy is not None or target.dataset.is_local
        return {"folder": str(folder) if kept else None, "written": files, "uploaded": address}


def corrected(
    path: Path, dataset: datasets.LeRobotDataset, lists: Mapping[str, annotation.SubtaskList]
) -> dict[int, dict[str, tuple[Segment, ...]]]:
    """What a person's file says, judged like a model's answer where a head's list of stages is known. DataError names every fault."""
    numbers = dataset.episode_indices
    names = {head: subtasks.names for head, subtasks in lists.items()}
    found = annotation.read_file(path, fps=dataset.fps, lengths={n: dataset.length(n) for n in numbers}, names=names)
    faults = []
    success = datasets.successes(dataset.files, dataset.meta, sorted(found)) if lists else {}
    for number, heads in found.items():
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
    if not found:
        raise DataError(f"{path} has no segment")
    return found


# Figures


def draw(
    dataset: datasets.LeRobotDataset,
    found: datasets.Annotations,
    answers: Answers,
    *,
    lists: Mapping[str, annotation.SubtaskList],
    camera: str | None,
    drawings: Mapping[int, Path],
    tick: Tick,
) -> None:
    """Draws what is found of these episodes. figures: episode -> its file."""
    words = set[str]()
    for done, (number, path) in enumerate(drawings.items(), start=1):
        episode = dataset.episode(number)
        heads = {head: found[number][head] for head in datasets.HEADS if found[number].get(head)}
        timelines = {
            head: _timeline(episode, segments, answers.get(head, {}).get(number), names=_names(head, dataset, lists, found), camera=camera)
            for head, segments in heads.items()
        }
        success = {True: " (success)", False: " (failure)", None: ""}[episode.success]
        figure = figures.annotation_figure(
            figures.AnnotationPicture(f"episode {number}: {episode.task}{success}", episode.fps, episode.length, timelines)
        )
        write_drawing(path, figures.png(figure), dataset)
        words |= set(figures.texts_of(figure))
        tick(done, len(drawings))
    warn_of_boxes(words)


def disagreements(answers: Answers) -> dict[int, float]:
    """Episode -> how much repeats differ, of the head where they do most; without those asked once."""
    found: dict[int, float] = {}
    for each in answers.values():
        for number, answer in each.items():
            if answer.notes.get("disagreement") is not None:
                found[number] = max(found.get(number, 0.0), float(answer.notes["disagreement"]))
    return found


def _names(
    head: str, dataset: datasets.LeRobotDataset, lists: Mapping[str, annotation.SubtaskList], found: datasets.Annotations
) -> tuple[str, ...]:
    """All stages in their order, so that each has its colour in every figure: the dataset's, else the list's, then what is neither's."""
    stages = dataset.stages.get(head)
    known = (*(stages.names if stages is not None else ()), *(lists[head].names if head in lists else ()))
    seen = (segment.name for heads in found.values() for segment in heads.get(head, ()))
    return tuple(dict.fromkeys([*known, *seen]))


def _timeline(
    episode: Episode, segments: Sequence[Segment], answer: annotation.Answer | None, *, names: Sequence[str], camera: str | None
) -> figures.HeadTimeline:
    """With what repeats said, if this annotation is what came of them."""
    at = np.array([min(figures.middle_frame(segment), episode.length - 1) for segment in segments])
    frames = episode.camera(camera)[at] if camera is not None else None
    if answer is None or "each" not in answer.notes or tuple(segments) != answer.segments:
        return figures.HeadTimeline(segments, names, frames)
    repeats = [None if each is None else tuple(Segment(*segment) for segment in each) for each in answer.notes["each"]]
    ours = metrics.borders(segments, episode.length)
    places: dict[int, list[int]] = {border.frame: [border.frame] for border in ours}
    for each in repeats:
        for own, theirs in metrics.matched(ours, metrics.borders(each, episode.length)) if each is not None else ():
            places[own.frame].append(theirs.frame)
    note = (
        f"{answer.notes['support']} of {answer.notes['repeats']} repeats have this order of stages; "
        f"two of them differ on {answer.notes['disagreement']:.0%} of the frames{' (a failed one on all)' if None in repeats else ''}"
    )
    return figures.HeadTimeline(segments, names, frames, [(frame, min(all_), max(all_)) for frame, all_ in places.items()], repeats, note)
