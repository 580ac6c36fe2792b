"""The study of docs/rabc_study.md: does RA-BC help on mixed-quality demonstrations in simulation, and is it the weights that do it?

    python benchmarks/rabc_study.py FOLDER [--pause-while FILE]      run what is not in FOLDER/runs.jsonl yet; stop it and start it at will
    python benchmarks/rabc_study.py FOLDER --report [--figures DIR]  print the tables, draw the figures

Every finished policy is one line. The most telling cells come first, seed by seed. The study's seeds are 0 to 4; settings were chosen on
seeds from 100 on, which are not in it.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import torch

from milepost.compare import ARMS, CompareConfig, run

TASKS = ("pick-place-v3", "shelf-place-v3", "peg-insert-side-v3", "assembly-v3")
SEEDS = (0, 1, 2, 3, 4)
FEW = ("uniform", "rabc-true", "rabc-sarm", "success+short")


def phases() -> Iterator[CompareConfig]:
    """In the order they are run."""
    for seed in SEEDS:
        yield CompareConfig(TASKS, shares=(0.8, 1.0), seeds=(seed,))
        yield CompareConfig(TASKS, shares=(0.0,), arms=FEW, seeds=(seed,))
    for seed in SEEDS:
        yield CompareConfig(
            TASKS, shares=(0.6,), arms=("uniform", "permuted", "success", "success+short", "rabc-true", "rabc-sarm"), seeds=(seed,)
        )
    for seed in SEEDS:
        yield CompareConfig(TASKS, shares=(0.3,), arms=FEW, seeds=(seed,))
    yield CompareConfig(TASKS, shares=(0.0, 0.3, 0.6), arms=tuple(ARMS), seeds=SEEDS)


def waiting(file: Path | None) -> Callable[[str], Callable[[int, int], None]]:
    """A progress callback that prints, and waits while a file is there."""

    def bar(name: str) -> Callable[[int, int], None]:
        def tick(done: int, total: int) -> None:
            while file is not None and file.exists():
                time.sleep(5)
            print(time.strftime("%H:%M:%S"), name, done, "of", total, flush=True)

        return tick

    return bar


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--pause-while", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(1)
    for config in phases():
        run(config, args.folder, on_progress=waiting(args.pause_while))


if __name__ == "__main__":
    main()
