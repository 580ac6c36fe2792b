"""Look at a dataset in the browser: every episode's curves beside its films; correct its stages, mark episodes. A page on this machine."""

from __future__ import annotations

import webbrowser
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from socket import gethostname
from typing import Annotated

import numpy as np
import tyro

from milepost import datasets, progress, viewer, weights
from milepost.cli.console import bars, say, warn, warn_all
from milepost.cli.readings import name_of
from milepost.core import DataError, require_writable, unfit

NAMED = 9
"""Annotations with a fault that are named, one by one."""
EXPORTED = 20
"""Episodes in an exported file where none are named."""


@dataclass(frozen=True)
class Args:
    dataset: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="DATASET")]
    """LeRobot dataset: a folder or a Hub id. Only what is changed on the page is written into it."""
    progress: Annotated[tuple[Path, ...], tyro.conf.arg(aliases=["--progress-file"])] = ()
    """Progress file or files; default: every *_progress.parquet beside the dataset."""
    weights: Path | None = None
    """Weights file of `milepost weigh`."""
    episodes: str | None = None
    """Episodes to show, such as 0-9,12 or 0 1 2; default: all."""
    host: str = "127.0.0.1"
    """Address to be bound to. Any but this machine's own opens the page to others, who need the token that is printed."""
    port: int = 8000
    """The next free one is taken if it is not; 0: any."""
    open: bool = False
    """Open the page in a browser."""
    review_file: Path | None = None
    """Where marks and notes are kept; default: DATASET.review.json beside the dataset, or here for a Hub dataset."""
    revision: str | None = None
    """Of a Hub dataset."""
    export_html: Path | None = None
    """Write the page with these episodes, their films included, into this one file, and serve nothing; without --episodes the first 20."""


def main(args: Args) -> int:
    if not 0 <= args.port <= 65535:
        raise ValueError(f"--port must be 0 to 65535, got {args.port}")
    if args.export_html is not None:
        return export(args, args.export_html)
    review = open_review(args)
    socket, door = viewer.bind(args.host, args.port)
    for problem in review.problems:
        warn(problem)
    if args.port and door.port != args.port:
        warn(f"port {args.port} is taken")
    say(f"{review.dataset.name}: {len(review.rows.numbers)} episodes, {door.url}   (Ctrl-C ends it)")
    if door.host in ("0.0.0.0", "::"):
        say(f"from other machines: http://{gethostname()}:{door.port}/?token={door.token}")
    if args.open:
        webbrowser.open(door.url)
    try:
        viewer.make_server(review, door).run(sockets=[socket])
    except KeyboardInterrupt:
        pass
    finally:
        review.close()
        socket.close()
    say("milepost view: ended")
    return 0


def export(args: Args, path: Path) -> int:
    """Exit code 1 if something could not be put into the file."""
    require_writable(path.parent)
    review, films = open_review(args), viewer.VideoCache()
    try:
        numbers = review.rows.numbers[: None if args.episodes else EXPORTED]
        with bars() as bar:
            problems = viewer.export_html(review, path, episodes=numbers, films=films, tick=bar("episodes"))
    finally:
        review.close()
        films.close()
    for problem in (*review.problems, *problems):
        warn(problem)
    left = len(review.rows.numbers) - len(numbers)
    say(f"{path}: {len(numbers)} episodes, {path.stat().st_size / 1e6:.1f} MB" + (f"; {left} more with --episodes" if left else ""))
    return 1 if problems or review.problems else 0


def open_review(args: Args) -> viewer.Review:
    """The dataset with everything that was asked for. DataError for a dataset, weights or marks that do not fit; a progress file that
    does not is a problem that the page shows."""
    dataset = datasets.open_dataset(args.dataset, revision=args.revision, episodes=args.episodes)
    models, problems = read_models(args.progress or beside(dataset), dataset)
    weight_rows = (args.weights, _weights(args.weights, dataset)) if args.weights is not None else None
    marks = viewer.Marks(args.review_file or viewer.marks_file(dataset), dataset)
    if datasets.is_interrupted(dataset.root):
        problems.append("writing annotations into this dataset was interrupted: some are old; the next save finishes it first")
    problems += annotation_problems(dataset)
    return viewer.Review(dataset, models, marks=marks, numbers=dataset.episode_indices, weights=weight_rows, problems=problems)


def annotation_problems(dataset: datasets.LeRobotDataset) -> list[str]:
    """Says which episodes have an annotation that cannot be true; on the page they have none, and can be annotated anew."""
    stages = dataset.stages
    records = [dataset.hints.episodes[number] for number in dataset.episode_indices]
    found = [
        (
            record.index,
            record.annotation_faults.get(head) or unfit(record.readable_segments.get(head, ()), head, stages.get(head), record.length),
        )
        for record in records
        for head in datasets.HEADS
        if head in record.readable_segments or head in record.annotation_faults
    ]
    faults = [f"episode {number}: {fault}" for number, fault in found if fault]
    return faults[:NAMED] + ([f"{len(faults) - NAMED} more annotations cannot be true; milepost info lists all"] if faults[NAMED:] else [])


def beside(dataset: datasets.LeRobotDataset) -> list[Path]:
    """The progress files in the dataset's folder; the clock's, which is there to compare with, last."""
    return sorted(dataset.files.beside("*_progress.parquet"), key=lambda path: (path.name == "elapsed_progress.parquet", path.name))


def read_models(paths: Sequence[Path], dataset: datasets.LeRobotDataset) -> tuple[dict[str, viewer.Model], list[str]]:
    """The progress files that can be read, by the names they go by, and what is wrong with the others."""
    models, problems = {}, []
    for given in dict.fromkeys(paths):
        try:
            read = progress.match_progress(given, dataset)
        except DataError as error:
            problems.append(str(error))
        else:
            warn_all(read.warnings)
            models[name_of(given, paths)] = viewer.Model(read.path, read.table)
    return models, problems


def _weights(path: Path, dataset: datasets.LeRobotDataset) -> np.ndarray:
    """(R,) by row of the dataset."""
    matched = weights.match_weights(path, dataset)
    warn_all(matched.warnings)
    return matched.weight
