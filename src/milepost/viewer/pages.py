"""The review page of a dataset in one HTML file: what `milepost view --export-html` writes, in Python."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from milepost.datasets import LeRobotDataset
from milepost.progress import match_progress
from milepost.viewer.export import export_html
from milepost.viewer.marks import Marks, marks_file
from milepost.viewer.media import VideoCache
from milepost.viewer.review import Model, Review
from milepost.weights import match_weights


def export_page(
    dataset: LeRobotDataset,
    path: Path | str,
    progress: Path | str | Mapping[str, Path | str] | None = None,
    *,
    episodes: Sequence[int] | None = None,
    weights: Path | str | None = None,
    title: str = "",
) -> list[str]:
    """Writes one HTML file that plays: videos of the episodes beside their curves. It needs no server and no network to be read.

    progress: a progress file, or several by the name that the page gives them; without it those beside the dataset. episodes: their
    indices, the first ten without it. weights: a weights file. Returns one message for each thing that could not be put into the page.
    DataError if there is no episode, or a file is another dataset's.

    >>> milepost.export_page(milepost.open_dataset("dots"), "review.html", episodes=[0])
    []
    """
    if isinstance(progress, Mapping):
        files = {name: Path(path) for name, path in progress.items()}
    else:
        paths = dataset.files.beside("*_progress.parquet") if progress is None else [Path(progress)]
        files = {path.stem.removesuffix("_progress"): path for path in paths}
    matched = {name: match_progress(path, dataset) for name, path in files.items()}
    rows = None if weights is None else (Path(weights), match_weights(Path(weights), dataset).weight)
    indices = list(dataset.episode_indices if episodes is None else episodes)[: None if episodes else 10]
    models = {name: Model(each.path, each.table) for name, each in matched.items()}
    review, videos = (
        Review(dataset, models, marks=Marks(marks_file(dataset), dataset), numbers=dataset.episode_indices, weights=rows),
        VideoCache(),
    )
    try:
        problems = export_html(review, Path(path), episodes=indices, films=videos, title=title)
        return [*review.problems, *problems]
    finally:
        review.close()
        videos.close()
