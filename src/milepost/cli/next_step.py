"""What to type next, from what is there: on the front page for the current folder, and at the end of `milepost info`."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from milepost import datasets

JOURNEY = (
    ("nothing yet", "milepost demo"),
    ("videos, HDF5, Zarr", "milepost import SOURCE --output-dir DATASET"),
    ("a LeRobot dataset", "milepost info DATASET"),
    ("", 'milepost annotate DATASET --sparse-subtasks "reach,lift,place"'),
    ("", "milepost train DATASET --preset small --output-dir MODEL"),
    ("a dataset and a model", "milepost label DATASET --model MODEL"),
    ("progress", "milepost view DATASET"),
    ("", "milepost audit DATASET --model MODEL"),
    ("", "milepost weigh DATASET"),
    ("weights", "milepost copy DATASET --weights DATASET/weights.parquet --output-dir NEW"),
)
"""What somebody has -> what they type next. A line without the first is another way to go on."""


@dataclass(frozen=True)
class Have:
    """What there is of a dataset. annotated: the heads that have stages; None if nobody looked. faulty: whether it has errors; damaged:
    the episodes that have them. progress, weights: names of files. version: of LeRobot's format, such as v3.0."""

    dataset: str
    progress: Sequence[str] = ()
    weights: Sequence[str] = ()
    annotated: Sequence[str] | None = None
    faulty: bool = False
    damaged: Sequence[int] = field(default_factory=tuple)
    version: str = "v3.0"


def found_in(folder: Path) -> Have | None:
    """Returns what a folder has, from the names of its files alone; None if it is no dataset."""
    if not (folder / "meta" / "info.json").is_file():
        return None
    names = sorted(path.name for path in folder.glob("*.parquet"))
    progress = [name for name in names if "progress" in name]
    return Have(".", progress, [name for name in names if "weights" in name])


def journey(folder: Path) -> str:
    """Returns the lines of the front page: what to type with what somebody has, or with the dataset that the folder is."""
    width = max(len(what) for what, _ in JOURNEY)
    lines = [f"  {'you have':<{width}}  type", *(f"  {what:<{width}}  {command}" for what, command in JOURNEY)]
    if (have := found_in(folder)) is not None:
        command, why = next_step(have)
        lines += ["", f"this folder is a LeRobot dataset; next: {command}", f"  {why}"]
    return "\n".join(lines)


def next_step(have: Have) -> tuple[str, str]:
    """Returns the command to type next, and what it does.

    >>> next_step(Have("towels", progress=["sarm_progress.parquet"]))
    ('milepost view towels', 'shows the curves beside the videos')
    """
    name = shlex.quote(have.dataset)
    if have.faulty and have.damaged:
        what = "v3.0 dataset" if datasets.leave_out_verb(have.version) == "milepost import" else "copy"
        command = datasets.leave_out_command(have.dataset, have.damaged, version=have.version)
        return command, f"makes a {what} without the episodes that have errors"
    if have.faulty:
        return f"milepost info {name} --deep", "decodes every image, and names each fault"
    if have.weights:
        return f"milepost copy {name} --weights {name}/{have.weights[0]} --output-dir NEW", "makes progress and weights columns of a copy"
    if have.progress:
        return f"milepost view {name}", "shows the curves beside the videos"
    if have.annotated is None:
        return f"milepost info {name}", "says what is in it, and what is wrong with it"
    mode = {(): "single_stage", ("sparse",): "sparse_only", ("dense",): "dense_only"}.get(tuple(have.annotated), "dual")
    return f"milepost train {name} --annotation-mode {mode} --preset small --output-dir sarm", "trains a small model of progress"


def next_lines(have: Have) -> str:
    """Returns what a verb prints at its end: the command to type next, and what it does."""
    command, why = next_step(have)
    return f"next: {command}\n      {why}"
