"""The review page of a dataset in one HTML file: what `milepost view --export-html` writes, in Python."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from milepost.core import require_file_name
from milepost.datasets import LeRobotDataset, as_dataset, episode_numbers, no_episode, require_own_drawings
from milepost.figures import audit_report
from milepost.progress import match_progress
from milepost.viewer.export import EXPORTED, export_html
from milepost.viewer.marks import Marks, marks_file
from milepost.viewer.media import VideoCache
from milepost.viewer.review import Model, Review
from milepost.weights import match_weights


def export_page(
    dataset: LeRobotDataset | Path | str,
    path: Path | str,
    progress: Path | str | Mapping[str, Path | str] | None = None,
    *,
    episodes: Sequence[int] | int | str | None = None,
    weights: Path | str | None = None,
    audit: Path | str | None = None,
    title: str = "",
    overwrite: bool = False,
) -> list[str]:
    """Writes one HTML file that plays: videos of the episodes beside their curves. It needs no server and no network to be read.

    dataset: one that is open, or a folder or Hub id. progress: a progress file, or several by the name that the page gives them; without
    it those beside the dataset. episodes: their indices, or text such as "0-9,12"; without it the first 20, as `milepost view` exports.
    weights: a weights file. audit: the folder that `milepost audit` wrote; the page shows its verdict first. overwrite: replaces a file
    that is there and is no page of this dataset. Returns one message for each thing that could not be put into the page. DataError if there
    is no such episode, or a file is another dataset's.

    "dots" is what `milepost.testing.write_example("dots")` writes: six episodes and a progress file.

    >>> milepost.export_page(milepost.open_dataset("dots"), "review.html", episodes=[0])
    []
    """
    dataset, path = as_dataset(dataset), Path(path)
    require_file_name(path)
    require_own_drawings([path], dataset, overwrite=overwrite, instead="choose another name, or give overwrite=True")
    indices = _chosen_episodes(dataset, episodes)
    if isinstance(progress, Mapping):
        files = {name: Path(file) for name, file in progress.items()}
    else:
        paths = dataset.files.beside("*_progress.parquet") if progress is None else [Path(progress)]
        files = {file.stem.removesuffix("_progress"): file for file in paths}
    matched = {name: match_progress(path, dataset) for name, path in files.items()}
    rows = None if weights is None else (Path(weights), match_weights(Path(weights), dataset).weight)
    models = {name: Model(each.path, each.table) for name, each in matched.items()}
    report, warnings = ("", ()) if audit is None else audit_report(audit, dataset)
    marks = Marks(marks_file(dataset), dataset)
    review = Review(dataset, models, marks=marks, numbers=dataset.episode_indices, weights=rows, problems=warnings, report=report)
    videos = VideoCache()
    try:
        problems = export_html(review, path, episodes=indices, films=videos, title=title)
        return [*review.problems, *problems]
    finally:
        review.close()
        videos.close()


def _chosen_episodes(dataset: LeRobotDataset, episodes: Sequence[int] | int | str | None) -> list[int]:
    """Returns the episodes to export. DataError for one that is not in use."""
    numbers = episode_numbers(episodes)
    for number in numbers or ():
        if number not in dataset.episode_indices:
            raise no_episode(number, dataset.episode_indices)
    return list(dataset.episode_indices[:EXPORTED]) if numbers is None else numbers
