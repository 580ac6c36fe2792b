"""One episode of a dataset and its progress files, as a figure or as a video: `milepost plot` and `milepost render`, in Python."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.figure import Figure

from milepost.core import MAIN_HEAD, DataError, Episode, atomic_path, names_of, require_file_name, warn_user
from milepost.datasets import LeRobotDataset, as_dataset, marked_drawing, require_own_drawings
from milepost.figures.episode import EpisodeView, episode_figure
from milepost.figures.film.render import render_video, require_height
from milepost.figures.report import CurvesByHead, curve_of, episode_view
from milepost.progress import MatchedProgress, ProgressTable, find_progress, match_progress, require_rows
from milepost.weights import match_weights

Source = ProgressTable | Path | str
"""A progress table, or the file it is in."""


def plot(
    dataset: LeRobotDataset | Path | str,
    episode_index: int,
    progress: Source | Mapping[str, Source] | None = None,
    *,
    heads: Sequence[str] | str = (MAIN_HEAD,),
    camera: str | None = None,
    width: float = 9.0,
) -> Figure:
    """Returns the figure of one episode: sample images, progress by model, stage probabilities, the truth where it is known.

    dataset: one that is open, or a folder or Hub id. progress: one progress file or table, or several by the name that the legend gives
    them; without it the file beside the dataset. heads: one panel each. camera: whose images are shown; the first camera without it. width:
    of the figure, in inches. DataError if a file is another dataset's or lacks a head, and for an episode or a camera that the dataset does
    not have.

    "dots" is what `milepost.testing.write_example("dots")` writes: six episodes and a progress file.

    >>> figure = milepost.plot(milepost.open_dataset("dots"), 0, {"clock": "dots/elapsed_progress.parquet"})
    >>> figure.savefig("episode_0.png")
    """
    dataset = as_dataset(dataset).showing([camera] if camera else [])
    episode, tables = dataset.episode(episode_index), _tables(dataset, progress)
    return episode_figure(episode_view(episode, _curves(dataset, episode, tables, names_of(heads)), dataset.stages, camera), width)


def render(
    dataset: LeRobotDataset | Path | str,
    episode_index: int,
    path: Path | str,
    progress: Source | Mapping[str, Source] | None = None,
    *,
    head: str = MAIN_HEAD,
    cameras: Sequence[str] | str | None = None,
    weights: Path | str | None = None,
    height: int | None = None,
) -> Path:
    """Writes the video of one episode to `path` (H.264 mp4): its images, and under them the curve as it plays. Returns the path.

    progress: as in `plot`. cameras: side by side; the first one without it. weights: a weights file, shown under the curves. height: of the
    images, in pixels: 16 to 4320. The file appears when it is complete. DataError as in `plot`, for an episode without a camera, and if
    there is a file that is no video of this dataset.

    "dots" is what `milepost.testing.write_example("dots")` writes: six episodes and a progress file.

    >>> milepost.render(milepost.open_dataset("dots"), 0, "episode_0.mp4", "dots/elapsed_progress.parquet").name
    'episode_0.mp4'
    """
    path = Path(path)
    if path.suffix != ".mp4":
        raise DataError(f"{path} should end in .mp4")
    require_file_name(path)
    require_height(height)
    names = names_of(cameras or ())
    dataset = as_dataset(dataset).showing(names)
    require_own_drawings([path], dataset)
    episode = dataset.episode(episode_index)
    content = _content(dataset, episode, _tables(dataset, progress), head, weights)
    with atomic_path(path) as video:
        render_video(episode, content, names or dataset.cameras[:1], video, height=height)
        video.write_bytes(marked_drawing(video.read_bytes(), path.suffix, dataset))
    return path


def _content(
    dataset: LeRobotDataset, episode: Episode, tables: Mapping[str, ProgressTable], head: str, weights: Path | str | None
) -> EpisodeView:
    weight = None if weights is None else match_weights(Path(weights), dataset).weight[episode.row : episode.row + episode.length]
    return episode_view(episode, _curves(dataset, episode, tables, [head]), dataset.stages, weight=weight, sampled=False)


def _tables(dataset: LeRobotDataset, progress: Source | Mapping[str, Source] | None) -> dict[str, ProgressTable]:
    """Returns the progress tables by the names they go by. DataError if one is another dataset's."""
    if progress is None:
        matched = _with_warnings(find_progress(dataset))
        return {matched.path.stem.removesuffix("_progress"): matched.table}
    sources = progress if isinstance(progress, Mapping) else {_name(progress): progress}
    return {name: _table(dataset, source) for name, source in sources.items()}


def _name(source: Source) -> str:
    if isinstance(source, ProgressTable):
        return source.name
    return Path(source).stem.removesuffix("_progress")


def _table(dataset: LeRobotDataset, source: Source) -> ProgressTable:
    if not isinstance(source, ProgressTable):
        return _with_warnings(match_progress(Path(source), dataset)).table
    require_rows("the progress table", source, dataset)
    return source


def _with_warnings(matched: MatchedProgress) -> MatchedProgress:
    """Returns the file; what is uncertain about it is a warning at the user's line."""
    for words in matched.warnings:
        warn_user(words)
    return matched


def _curves(dataset: LeRobotDataset, episode: Episode, tables: Mapping[str, ProgressTable], heads: Sequence[str]) -> CurvesByHead:
    return {head: {name: curve_of(table, episode, dataset.stages.get(head), head) for name, table in tables.items()} for head in heads}
