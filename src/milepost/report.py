"""One HTML file that tells what a dataset's curves are worth: tables, weights, curves beside frames. Opens offline; holds everything."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import jinja2
import numpy as np
from matplotlib.figure import Figure

from milepost.evaluate import truth_of
from milepost.plots import EpisodePicture, png, sample_frames
from milepost.stages import Stages
from milepost.store import ProgressTable, write_text
from milepost.types import Episode


def picture(
    episode: Episode,
    tables: dict[str, ProgressTable],
    stages: Stages | None,
    camera: str | None = None,
    *,
    head: str = "sparse",
    weight: np.ndarray | None = None,
) -> EpisodePicture:
    """Everything an episode's figure shows; reads the sample frames."""
    truth = truth_of(episode, stages, head)
    at = sample_frames(episode.length)
    camera = camera or next(iter(episode.cameras), None)
    success = {True: "success", False: "failure", None: ""}[episode.success]
    notes = ", ".join(filter(None, (str(episode.facts.get("kind", "")), success)))
    return EpisodePicture(
        title=f"episode {episode.index}: {episode.task}" + (f" ({notes})" if notes else ""),
        fps=episode.fps,
        curves={name: table.episode(episode.index, episode.length, head) for name, table in tables.items()},
        truth=None if np.isnan(truth.progress).all() else truth.progress,
        stage=None if (truth.stage < 0).all() else truth.stage,
        stage_names=stages.names if stages is not None else (),
        weight=weight,
        frames=episode.camera(camera)[np.array(at)] if camera else None,
        frames_at=at,
    )


@dataclass(frozen=True, eq=False)
class Section:
    """A heading, some words, a table and figures; any of them may be empty."""

    title: str
    words: str = ""
    columns: Sequence[str] = ()
    rows: Sequence[Sequence[object]] = ()
    figures: Sequence[Figure] = field(default=())


def write_report(path: Path, *, title: str, lead: str, facts: Sequence[tuple[str, str]], sections: Sequence[Section]) -> None:
    """A self-contained page: style, tables and images inside; nothing is fetched when it is opened."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("milepost", "templates"), autoescape=True, undefined=jinja2.StrictUndefined
    )
    pages = [
        {
            "title": section.title,
            "words": section.words,
            "columns": section.columns,
            "rows": [[str(cell) for cell in row] for row in section.rows],
            "images": [base64.b64encode(png(figure)).decode() for figure in section.figures],
        }
        for section in sections
    ]
    write_text(path, environment.get_template("report.html").render(title=title, lead=lead, facts=facts, sections=pages))
