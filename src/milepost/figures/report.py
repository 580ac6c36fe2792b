"""The view model of one episode's figure from the curves of several models; and a report of tables, text and figures as an HTML
fragment."""

from __future__ import annotations

import base64
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace

import jinja2
import numpy as np
from jaxtyping import Float
from matplotlib.figure import Figure

from milepost.core import MAIN_HEAD, WHOLE, Curve, Episode, Stages, UnreadableError
from milepost.figures.episode import EpisodeView, HeadView, sample_frames
from milepost.figures.style import png
from milepost.metrics import nothing_known, truth_of
from milepost.progress import ProgressTable, require_episode

CurvesByHead = Mapping[str, Mapping[str, Curve]]
"""Head -> model's name -> its curve of one episode."""


def curve_of(table: ProgressTable, episode: Episode, stages: Stages | None, head: str = MAIN_HEAD) -> Curve:
    """Returns one episode of a progress file. The stages' names are those of the model that made it, else the dataset's, if as many.

    DataError if the file has no such head, or its rows are not those of this episode.
    """
    require_episode("the progress file", table, episode)
    return with_stage_names(table.curve(episode.index, episode.length, head), stages)


def with_stage_names(curve: Curve, stages: Stages | None) -> Curve:
    """Returns the curve with names for its stages: its own, else the dataset's, if as many, else numbers."""
    if curve.stage is None or curve.stage_names:
        return curve
    count = curve.stage.shape[1]
    if stages is not None and len(stages.names) == count:
        return replace(curve, stage_names=tuple(stages.names))
    return replace(curve, stage_names=WHOLE.names if count == 1 else _numbered(count))


def episode_view(
    episode: Episode,
    curves: CurvesByHead,
    stages: Mapping[str, Stages],
    camera: str | None = None,
    *,
    weight: np.ndarray | None = None,
    sampled: bool = True,
) -> EpisodeView:
    """Returns all that an episode's figure shows; reads the sample frames if `sampled`. `curves`: head -> model's name -> its curve."""
    at = _sampled(episode, [curve for by_model in curves.values() for curve in by_model.values()])
    camera = camera or next(iter(episode.cameras), None)
    success = {True: "success", False: "failure", None: ""}[episode.success]
    notes = ", ".join(filter(None, (str(episode.facts.get("kind", "")), success)))
    return EpisodeView(
        title=f"episode {episode.index}: {episode.task}" + (f" ({notes})" if notes else ""),
        fps=episode.fps,
        heads={head: _head(episode, by_model, stages.get(head), head) for head, by_model in curves.items()},
        weight=weight,
        frames=episode.camera(camera)[np.array(at)] if camera and sampled else None,
        frames_at=at,
    )


def _head(episode: Episode, models: Mapping[str, Curve], stages: Stages | None, head: str) -> HeadView:
    """Returns one head's view model. The dataset's stages come first, so they have the same colours for every model; then other names that
    models use."""
    try:
        truth = truth_of(episode, stages, head)
    except UnreadableError:  # the curves are still worth drawing; the caller warns that the annotation is missing
        truth = nothing_known(episode)
    names = list(stages.names if stages is not None else _numbered(int(truth.stage.max()) + 1))
    staged = {name: one for name, one in models.items() if one.stage is not None and len(one.stage_names) > 1}
    names += dict.fromkeys(name for one in staged.values() for name in one.stage_names if name not in names)
    probabilities = {}
    for who, one in staged.items():
        assert one.stage is not None
        probabilities[who] = np.zeros((episode.length, len(names)), dtype=np.float32)
        probabilities[who][:, [names.index(name) for name in one.stage_names]] = _between(one.stage, one.value)
    if len(names) == 1:  # a task with one stage: one colour throughout has no information
        names, truth = [], replace(truth, stage=np.full(episode.length, -1))
    return HeadView(
        curves={name: one.value for name, one in models.items()},
        truth=None if np.isnan(truth.progress).all() else truth.progress,
        truth_source=truth.source,
        true_stage=None if (truth.stage < 0).all() else truth.stage,
        stage_names=names,
        probabilities=probabilities,
        computed=_computed(models.values()),
        scores={name: one.signals[one.score] for name, one in models.items() if one.score and not _repeats(one)},
    )


def _repeats(curve: Curve) -> bool:
    """Returns whether the score is the progress itself, as of a model that answers with progress: a second drawing would tell nothing."""
    score = curve.signals[curve.score].values
    there = ~np.isnan(score)
    return bool(np.allclose(score[there], curve.value[there], rtol=0, atol=1e-6))


def _sampled(episode: Episode, models: Collection[Curve]) -> list[int]:
    """Returns sample frames. With a stride, it takes the nearest frames that a model computed, so that no caption shows an interpolated
    value."""
    at, computed = sample_frames(episode.length), np.array(_computed(models))
    return at if not len(computed) else sorted({int(computed[np.abs(computed - frame).argmin()]) for frame in at})


def _computed(models: Collection[Curve]) -> list[int]:
    """Returns the frames that the models computed, if all models that have gaps have the same ones (`label --stride`, TOPReward)."""
    patterns = set()
    for one in models:
        marks = one.stage[:, 0] if one.stage is not None else one.signals[one.score].values if one.score else None
        if marks is not None:
            computed = ~np.isnan(marks)
            skipped = (~computed & ~np.isnan(one.value)).any()
            patterns.add(tuple(np.flatnonzero(computed).tolist()) if skipped else ())
    return list(patterns.pop()) if len(patterns) == 1 else []


def _between(stage: Float[np.ndarray, "T K"], value: Float[np.ndarray, "T"]) -> Float[np.ndarray, "T K"]:
    """Interpolates stage probabilities linearly between the frames that have them, where progress is known."""
    computed = np.flatnonzero(~np.isnan(stage[:, 0]))
    if not len(computed) or len(computed) == len(stage):
        return stage
    full = np.stack([np.interp(np.arange(len(stage)), computed, column[computed]) for column in stage.T], axis=1)
    return np.where(np.isnan(value)[:, None], np.nan, full).astype(np.float32)


def _numbered(count: int) -> tuple[str, ...]:
    return tuple(f"stage {k + 1}" for k in range(count))


@dataclass(frozen=True, eq=False)
class Section:
    """A heading, some text, a table, figures, images as PNG, and links into the page that contains it (address, text).

    Any of them may be empty. sentences: the table holds sentences, which are broken into lines, not numbers.
    """

    title: str
    words: str = ""
    columns: Sequence[str] = ()
    rows: Sequence[Sequence[object]] = ()
    figures: Sequence[Figure] = field(default=())
    images: Sequence[bytes] = field(default=(), repr=False)
    sentences: bool = False
    links: Sequence[tuple[str, str]] = ()


def report_fragment(*, title: str, lead: str, facts: Sequence[tuple[str, str]], sections: Sequence[Section]) -> str:
    """Returns HTML to embed in a page, with its images inside; all text is escaped."""
    environment = jinja2.Environment(loader=jinja2.PackageLoader("milepost.figures"), autoescape=True, undefined=jinja2.StrictUndefined)
    parts = [
        {
            "title": section.title,
            "words": section.words,
            "columns": section.columns,
            "sentences": section.sentences,
            "rows": [[str(cell) for cell in row] for row in section.rows],
            "images": [base64.b64encode(image).decode() for image in (*map(png, section.figures), *section.images)],
            "links": section.links,
        }
        for section in sections
    ]
    return environment.get_template("report.html").render(title=title, lead=lead, facts=facts, sections=parts)
