"""Turn recordings that are not LeRobot's into a new LeRobot v3.0 dataset.

The source is only read.

SOURCE: a folder of videos with a CSV (columns file, task, success, state), an HDF5 file of robomimic, a folder of ALOHA's HDF5 episodes, a
Zarr replay buffer (diffusion policy, UMI; a folder or a .zip), an RLDS folder, which needs tensorflow-datasets, or a folder of LeRobot v2.0
or v2.1.
What was taken for what is printed. Episodes without a frame are left out and counted.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import tyro

from milepost import datasets, importing
from milepost.cli.console import FIRST, bars, say, warn
from milepost.cli.next_step import Have, next_lines
from milepost.core import count_noun, later


@dataclass(frozen=True)
class Args:
    source: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="SOURCE")]
    """What to import: a file or a folder."""
    output_dir: Path
    """Folder of the new dataset; it must not exist."""
    format: Literal["auto", "videos", "robomimic", "aloha", "zarr", "rlds", "lerobot"] = "auto"
    """Layout of the source; auto looks at it and says what it is taken for."""
    choices: tyro.conf.OmitArgPrefixes[importing.Choices] = field(default_factory=importing.Choices)
    vcodec: Literal["libsvtav1", "libx264", "libx265"] = "libsvtav1"
    """Encoder of the videos; LeRobot's own is libsvtav1 (AV1), and libx264 is the fastest."""


def main(args: Args) -> int:
    """Imports the source; returns 1 if episodes are left out."""
    source_path, root = args.source.expanduser(), args.output_dir.expanduser()
    datasets.require_new_folder(root, source_path)
    source = importing.open_source(source_path, args.format, args.choices)
    say(f"{source_path}: {source.kind}, {count_noun(len(source.entries), 'episode')} at {source.fps} fps")
    if args.choices.episodes is not None or args.choices.without is not None:
        say("the others are left out; these are numbered from 0 in the new dataset")
    for note in source.notes:
        say(note)
    with bars() as bar:
        result = importing.import_source(source, root, codec=args.vcodec, on_look=later(bar, "check"), on_episode=later(bar, "episodes"))
    say(f"dataset: {root} ({count_noun(result.episodes, 'episode')}, {count_noun(result.frames, 'frame')})")
    if result.empty:
        names = ", ".join(result.empty[:FIRST]) + (" and others" if len(result.empty) > FIRST else "")
        warn(f"{count_noun(len(result.empty), 'episode')} without a frame left out: {names}")
    if not source.cameras:
        warn("there is no camera, so no reward model can look at this dataset; LeRobot reads it all the same")
    say(next_lines(Have(str(root))))
    return 1 if result.empty else 0
