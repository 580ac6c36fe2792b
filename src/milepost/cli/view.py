"""Review a dataset in the browser: every episode's curves beside its videos.

On the page you correct stages and mark episodes. The page is local.
"""

from __future__ import annotations

import webbrowser
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from socket import gethostname
from typing import Annotated

import numpy as np
import tyro

from milepost import datasets, figures, progress, serving, viewer, weights
from milepost.cli.console import bars, say, warn, warn_all
from milepost.cli.progress_io import name_of
from milepost.core import HEADS, DataError, count_noun, require_writable, segments_fault

NAMED = 9
"""Most annotations with a fault that are named one by one."""


@dataclass(frozen=True)
class Args:
    dataset: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="DATASET")]
    """LeRobot dataset: a folder, a Hub id or an address (s3://...). Only changes made on the page are written into it."""
    progress: Annotated[tuple[Path, ...], tyro.conf.arg(aliases=["--progress-file"])] = ()
    """One or several progress files; default: every *_progress.parquet beside the dataset."""
    weights: Path | None = None
    """Weights file of `milepost weigh`."""
    audit: Path | None = None
    """Folder that `milepost audit` wrote; the page shows its verdict first."""
    episodes: str | None = None
    """Episodes to show, such as 0-9,12 or 0 1 2; default: all."""
    host: str = "127.0.0.1"
    """Address of the server. Any other than this machine's own opens the page to other machines; they need the token that is printed."""
    port: int = 8000
    """Port of the server; if it is taken, the next free one is used. 0: any free port."""
    open: bool = False
    """Open the page in a browser."""
    review_file: Path | None = None
    """File of marks and notes; default: DATASET.review.json beside the dataset; for a Hub dataset, in the current folder."""
    revision: str | None = None
    """Branch, tag or commit of a Hub dataset."""
    export_html: Path | None = None
    """Write the page with these episodes and their videos into this one file, and start no server; without --episodes: the first 20."""
    overwrite: bool = False
    """With --export-html: replace a file that is there and is no page of this dataset; a page of this dataset is always replaced."""


def main(args: Args) -> int:
    """Serves the page until Ctrl-C, or exports it."""
    if args.overwrite and args.export_html is None:
        raise ValueError("--overwrite does nothing without --export-html")
    if not 0 <= args.port <= 65535:
        raise ValueError(f"--port must be 0 to 65535, got {args.port}")
    if args.export_html is not None:
        return export(args, args.export_html)
    review = open_review(args)
    socket, address = serving.bind(args.host, args.port)
    for problem in review.problems:
        warn(problem)
    if args.port and address.port != args.port:
        warn(f"port {args.port} is taken")
    say(f"{review.dataset.name}: {count_noun(len(review.rows.numbers), 'episode')}, {address.url}   (Ctrl-C ends it)")
    if address.host in ("0.0.0.0", "::"):
        say(f"from other machines: http://{gethostname()}:{address.port}/?token={address.token}")
    if args.open:
        webbrowser.open(address.url)
    try:
        viewer.make_server(review, address).run(sockets=[socket])
    except KeyboardInterrupt:
        pass
    finally:
        review.close()
        socket.close()
    say("milepost view: ended")
    return 0


def export(args: Args, path: Path) -> int:
    """Writes the page into a file. Returns exit code 1 if something could not be included."""
    require_writable(path.parent)
    review, videos = open_review(args), viewer.VideoCache()
    try:
        datasets.require_own_drawings(
            [path], review.dataset, overwrite=args.overwrite, instead="choose another --export-html, or use --overwrite"
        )
        numbers = review.rows.numbers[: None if args.episodes else viewer.EXPORTED]
        with bars() as bar:
            problems = viewer.export_html(review, path, episodes=numbers, films=videos, tick=bar("episodes"))
    finally:
        review.close()
        videos.close()
    for problem in (*review.problems, *problems):
        warn(problem)
    remaining = len(review.rows.numbers) - len(numbers)
    say(
        f"{path}: {count_noun(len(numbers), 'episode')}, {path.stat().st_size / 1e6:.1f} MB"
        + (f"; {remaining} more with --episodes" if remaining else "")
    )
    return 1 if problems or review.problems else 0


def open_review(args: Args) -> viewer.Review:
    """Opens the dataset with its progress files, weights and marks. DataError for a dataset, weights or marks that do not fit; a progress
    file that does not fit is a problem that the page shows."""
    dataset = datasets.open_dataset(args.dataset, revision=args.revision, episodes=args.episodes)
    models, problems = read_models(args.progress or beside(dataset), dataset, dataset.episode_indices[: viewer.MOST])
    weight_rows = (args.weights, _weights(args.weights, dataset)) if args.weights is not None else None
    marks = viewer.Marks(args.review_file or viewer.marks_file(dataset), dataset)
    if datasets.is_interrupted(dataset.root):
        problems.append("writing annotations into this dataset was interrupted: some are old; the next save finishes it first")
    problems += annotation_problems(dataset)
    report, warnings = figures.audit_report(args.audit, dataset) if args.audit is not None else ("", ())
    warn_all(warnings)
    return viewer.Review(
        dataset, models, marks=marks, numbers=dataset.episode_indices, weights=weight_rows, problems=problems, report=report
    )


def annotation_problems(dataset: datasets.LeRobotDataset) -> list[str]:
    """Returns messages about annotations with a fault; on the page these episodes have no annotation and can be annotated again."""
    if not dataset.hints.can_have_annotations:
        return []
    stages, records = dataset.stages, (dataset.hints.episodes[number] for number in dataset.episode_indices)
    candidates = [
        (
            record.index,
            record.annotation_faults.get(head)
            or segments_fault(record.readable_segments.get(head, ()), head, stages.get(head), record.length),
        )
        for record in records
        for head in HEADS
        if head in record.readable_segments or head in record.annotation_faults
    ]
    faults = [f"episode {number}: {fault}" for number, fault in candidates if fault]
    return faults[:NAMED] + ([f"{len(faults) - NAMED} more annotations cannot be true; milepost info lists all"] if faults[NAMED:] else [])


def beside(dataset: datasets.LeRobotDataset) -> list[Path]:
    """Returns the progress files in the dataset's folder. The clock's file is last, because it is only a baseline."""
    return sorted(dataset.files.beside("*_progress.parquet"), key=lambda path: (path.name == "elapsed_progress.parquet", path.name))


def read_models(
    paths: Sequence[Path], dataset: datasets.LeRobotDataset, episodes: Sequence[int] | None = None
) -> tuple[dict[str, viewer.Model], list[str]]:
    """Reads the progress files. Returns the readable ones by name, and messages about the others.

    episodes: those whose curves are needed, all if None; of a file of many more, the other rows are not read.
    """
    models, problems = {}, []
    for requested in dict.fromkeys(paths):
        try:
            progress_file = progress.match_progress(requested, dataset, episodes)
        except DataError as error:
            problems.append(str(error))
        else:
            warn_all(progress_file.warnings)
            models[name_of(requested, paths)] = viewer.Model(progress_file.path, progress_file.table)
    return models, problems


def _weights(path: Path, dataset: datasets.LeRobotDataset) -> np.ndarray:
    """Returns the weights (R,) by row of the dataset."""
    matched = weights.match_weights(path, dataset)
    warn_all(matched.warnings)
    return matched.weight
