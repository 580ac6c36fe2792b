"""Make a LeRobot dataset of simulated demonstrations of mixed quality.

The demonstrations come from Meta-World. Their true progress is known for every frame.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from milepost import sim
from milepost.cli.console import bars, say
from milepost.core import Ticks


@dataclass(frozen=True)
class Args:
    output: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="FOLDER")]
    """Folder of the new dataset; it must not exist."""
    tasks: Annotated[tuple[str, ...], tyro.conf.arg(help=f"Any of: {', '.join(sim.TASKS)}.")] = sim.SimConfig.tasks
    successes: int = 48
    """Successful episodes per task, divided over the kinds expert, hesitating, clumsy and backtracking."""
    failures: int = 24
    """Failed episodes per task, divided over the kinds of failure."""
    size: int = 96
    """Width and height of the images, in pixels."""
    seed: int = 0
    workers: int = 2


def main(args: Args) -> int:
    """Simulates the dataset."""
    config = sim.SimConfig(args.tasks, sim.episodes_by_kind(args.successes, args.failures), size=args.size, seed=args.seed)
    with bars() as bar:
        sim.make_dataset(args.output, config, workers=args.workers, on_progress=Ticks(bar))
    say(f"dataset: {args.output}")
    return 0
