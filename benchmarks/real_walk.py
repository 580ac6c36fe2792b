"""A user's walk over real recordings: each verb in turn on each dataset, as on the command line, without a step by hand between them.

    python benchmarks/real_walk.py FOLDER [--only cr5_banana ...] [--steps 30] [--out walk]

FOLDER has the datasets of real_data.py; all that is written lies in --out, and a dataset that changed is an error. Training is staged where
the dataset has stages. What is learnt in 30 steps says nothing of a model: this shows that the verbs work. What they print is in
OUT/SET/log.txt; exit code 1 if a verb failed. `audit` may return 1: it says that a property fails.
"""

from __future__ import annotations

import argparse
import contextlib
import time
from collections.abc import Sequence
from pathlib import Path

from milepost.cli.entry import main as milepost
from milepost.datasets import open_dataset
from milepost.metrics import CONTROLS
from milepost.metrics.controls import FAULTS

SETS = ("cr5_banana", "g1_bottle", "bimanual_table", "libero_rollouts", "gr1_sim_pick")
CONTROLS_WITHOUT_NEW_IMAGES = [name for name in CONTROLS if name not in FAULTS]
"""The others encode every image anew, which takes minutes an episode."""


def verbs(dataset: Path, out: Path, steps: int) -> list[list[str]]:
    """Returns the words of each command, in order."""
    given, model, curves = str(dataset), str(out / "model"), str(out / "progress.parquet")
    opened = open_dataset(dataset)
    annotated = any(opened.meta.episodes[number].readable_segments.get("sparse") for number in opened.episode_indices)
    mode = "sparse_only" if annotated else "single_stage"
    return [
        ["info", given],
        ["train", given, "--output-dir", model, "--preset", "small", "--steps", str(steps), "--annotation-mode", mode, "--overwrite"],
        ["label", given, "--model", model, "--output-path", curves, "--overwrite"],
        ["evaluate", given, "--progress", curves],
        ["audit", given, "--model", model, "--output-dir", str(out / "audit"), "--num-episodes", "5", "--stride", "5",
         "--controls", *CONTROLS_WITHOUT_NEW_IMAGES],
        ["plot", given, "--progress", curves, "--num-visualizations", "1", "--output-dir", str(out / "plots")],
        ["view", given, "--progress", curves, "--episodes", "0", "--export-html", str(out / "page.html")],
    ]  # fmt: skip


def state_of(folder: Path) -> list[tuple[str, int, int]]:
    """Returns path, size and time of change of every file."""
    return sorted((str(path), path.stat().st_size, path.stat().st_mtime_ns) for path in folder.rglob("*") if path.is_file())


def walk(dataset: Path, out: Path, steps: int) -> dict[str, str]:
    """Runs each verb, and returns what became of it."""
    out.mkdir(parents=True, exist_ok=True)
    before, outcome = state_of(dataset), {}
    with (out / "log.txt").open("w", buffering=1) as log, contextlib.redirect_stdout(log), contextlib.redirect_stderr(log):
        for words in verbs(dataset, out, steps):
            print("$ milepost", *words)
            start = time.monotonic()
            code = milepost(words)
            works = code == 0 or (words[0], code) == ("audit", 1)
            outcome[words[0]] = f"{'ok' if works else f'FAILS ({code})'}, {time.monotonic() - start:.0f} s"
    if state_of(dataset) != before:
        outcome["dataset"] = "FAILS (it was changed)"
    return outcome


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--only", nargs="+", default=SETS)
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--out", type=Path, default=Path("walk"))
    args = parser.parse_args(arguments)
    outcomes = []
    for name in args.only:
        outcome = walk(args.folder / name, args.out / name, args.steps)
        print(f"{name}: " + "; ".join(f"{verb} {what}" for verb, what in outcome.items()), flush=True)
        outcomes += outcome.values()
    return 1 if any("FAILS" in each for each in outcomes) else 0


if __name__ == "__main__":
    raise SystemExit(main())
