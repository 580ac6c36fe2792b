"""Reads progress files episode by episode, for the verbs that draw; checks that progress says something, for those that compute from it.

A file of another dataset is refused.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TypeAlias

import numpy as np
from jaxtyping import Float

from milepost import datasets, figures, progress
from milepost.cli.console import say, warn, warn_all
from milepost.core import MAIN_HEAD, Curve, DataError, Episode, Stages, UnreadableError, annotation_fault, bare_reason, shortlist

ReadCurves: TypeAlias = "Callable[[Episode], figures.CurvesByHead]"
"""Episode -> head -> model's name -> its curve."""


def by_files(paths: Sequence[Path], dataset: datasets.LeRobotDataset, heads: Sequence[str]) -> tuple[ReadCurves, list[int]]:
    """Returns a function that reads an episode's curves, and the indices of the episodes in all files. Without paths it reads the usual
    file beside the dataset.

    DataError if a file has no such head, or is of another dataset.
    """
    if paths:
        files = [progress.match_progress(path, dataset) for path in dict.fromkeys(paths)]
    else:
        files = [progress.find_progress(dataset)]
    paths = [file.path for file in files]
    tables = {name_of(file.path, paths): file.table for file in files}
    if tuple(heads) == (MAIN_HEAD,) and not any(MAIN_HEAD in file.table.heads for file in files):
        heads = [next(iter(files[0].table.heads))]  # the main head, whatever its name
    for file in files:
        require_heads(str(file.path), list(file.table.heads), heads)
        warn_all(file.warnings)
    by_file = [set(table.episode_index.tolist()) for table in tables.values()]
    if not set.union(*by_file) & set(dataset.episode_indices):
        raise DataError(f"{', '.join(map(str, paths))}: no progress for any of these episodes")
    in_all_files = set.intersection(*by_file) or set.union(*by_file)
    numbers = [number for number in dataset.episode_indices if number in in_all_files]

    def curves_of(episode: Episode) -> figures.CurvesByHead:
        stages = dataset.stages
        return {head: {name: figures.curve_of(table, episode, stages.get(head), head) for name, table in tables.items()} for head in heads}

    return curves_of, numbers


def name_of(path: Path, paths: Sequence[Path]) -> str:
    """Returns a file's name for the legend, with as many folders as needed to distinguish it from the others, never the whole path."""
    others = [other.absolute().parts for other in dict.fromkeys(paths)]
    parts = path.absolute().parts
    same = [other for other in others if other[-1] == parts[-1]]
    depth = next((k for k in range(1, len(parts)) if [other[-k:] for other in same].count(parts[-k:]) == 1), len(parts) - 1)
    return "/".join((*parts[-depth:-1], path.stem.removesuffix("_progress")))


def require_varied(value: Float[np.ndarray, "N"], purpose: str) -> None:
    """Raises DataError if no progress is known, or if it is one number in all frames. purpose: what it is needed for, in words."""
    values = value[~np.isnan(value)]
    if not len(values):
        raise DataError(f"no frame of the progress file has a progress: there is nothing to {purpose}; label the dataset again")
    if values.min() == values.max():
        raise DataError(f"progress is {values[0]:g} in every frame: there is nothing to {purpose}; look at the curves with milepost plot")


def require_heads(source: str, available: Sequence[str], heads: Sequence[str]) -> None:
    """Raises DataError if a head is not in the file."""
    for head in heads:
        if head not in available:
            raise DataError(f"{source} has no {head} head; it has: {', '.join(available)}")


def open_with_cameras(
    folder_or_repo: str, cameras: Sequence[str], *, revision: str | None = None, episodes: str | None = None
) -> datasets.LeRobotDataset:
    """Opens a dataset with its cameras and the cameras of the caller: depth is used only if it is named."""
    dataset = datasets.open_dataset(folder_or_repo, revision=revision, episodes=episodes)
    if all(camera in dataset.cameras for camera in cameras):
        return dataset
    return datasets.open_dataset(folder_or_repo, revision=revision, episodes=episodes, cameras=[*dataset.cameras, *cameras])


class SkippedEpisodes:
    """The episodes that a verb could not use, or could use only in part: each is named with its reason, and the others continue."""

    def __init__(self) -> None:
        self.numbers: list[int] = []
        self.unannotated: list[int] = []
        self.unknown = 0
        """Frames without progress."""

    def __bool__(self) -> bool:
        return bool(self.numbers or self.unannotated)

    @contextmanager
    def unless_readable(self, number: int) -> Iterator[None]:
        """Skips the rest of the block if the episode turns out to be unreadable."""
        try:
            yield
        except UnreadableError as error:
            self.numbers.append(number)
            warn(f"episode {number} is left out: {bare_reason(error, number)}")

    def warn_of_annotation(self, episode: Episode, heads: Iterable[str], stages: Mapping[str, Stages]) -> None:
        """Warns about an annotation with a fault: it is not drawn, the rest of the episode is."""
        for head in heads:
            if fault := annotation_fault(episode, head, stages.get(head)):
                self.unannotated.append(episode.index)
                warn(f"episode {episode.index} is drawn without its annotation: {fault}")

    def count_unknown(self, curves: Mapping[str, Mapping[str, Curve]]) -> None:
        """Counts the frames of an episode that have no progress; curves: by head and model."""
        self.unknown += sum(int(np.isnan(curve.value).sum()) for by_model in curves.values() for curve in by_model.values())

    def report_drawings(self, place: str, words: Iterable[str], total: int, *, gaps: str) -> int:
        """Reports where the drawings are, and what is missing in them; returns the exit code, 1 if anything is.

        place: what they are, and where. words: all that stands in them. gaps: the words around the number of frames without progress.
        """
        say(place)
        warn_of_missing_letters(words)
        self.report(total)
        if self.unknown:
            warn(f"frames without progress in {gaps.format(self.unknown)}")
        return 1 if self.unknown or self else 0

    def report(self, total: int) -> None:
        """Warns how many episodes are left out, if any."""
        if self.numbers:
            warn(f"{len(self.numbers)} of {total} episodes could not be read and are left out: {shortlist(self.numbers)}")


def warn_of_missing_letters(texts: Iterable[str]) -> None:
    """Warns about letters in a figure that no installed font has."""
    if letters := figures.missing_letters(texts):
        some = letters if len(letters) <= 20 else f"{letters[:20]} and {len(letters) - 20} more"
        warn(f"no font here has the letters {some}: boxes stand for them; install one that has them, such as Noto Sans CJK")
