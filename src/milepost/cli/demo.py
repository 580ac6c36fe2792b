"""Run all steps on simulated demonstrations, and report the results.

The steps are: simulate, train, label, weigh, report. After an interruption, the same command continues.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from milepost import metrics, sim
from milepost.cli.console import bars, say, table, warn
from milepost.cli.journey import DemoConfig, DemoResult, Journey, remove_demo, weight_numbers
from milepost.core import to_json


@dataclass(frozen=True)
class Args:
    output_dir: Path = Path("milepost-demo")
    """Folder of all results: dataset, models, weights, report."""
    tasks: Annotated[tuple[str, ...], tyro.conf.arg(help=f"Any of: {', '.join(sim.TASKS)}.")] = DemoConfig.tasks
    successes: int = DemoConfig.successes
    """Successful episodes per task."""
    failures: int = DemoConfig.failures
    """Failed episodes per task."""
    holdout: float = DemoConfig.holdout
    """Proportion of the start scenes that are held out from training."""
    steps: int = DemoConfig.steps
    """Training steps of the staged model; the single-stage one takes half."""
    chunk_size: int = DemoConfig.chunk_size
    """Horizon of the weights in frames; the episodes are short."""
    seed: int = 0
    workers: int = 2
    overwrite: bool = False
    """Delete the demo that is in the folder and start again. Other files in the folder stay."""
    json: bool = False


def main(args: Args) -> int:
    """Runs the demo and prints its tables."""
    sim.require_renderer()
    if args.overwrite and (args.output_dir / "demo.json").is_file():
        remove_demo(args.output_dir)
    config = DemoConfig(args.tasks, args.successes, args.failures, args.holdout, args.steps, args.chunk_size, args.seed)
    with bars() as bar:
        result = Journey(args.output_dir, config, bar, workers=args.workers).run()
    if args.json:
        say(to_json({name: summary.to_dict() for name, summary in result.summaries.items()}))
    else:
        show(result)
    return 0


def show(result: DemoResult) -> None:
    """Prints the tables of the demo, and the path of the report."""
    table("held-out demonstrations (95 % intervals over episodes)", *metrics.summary_table(result.summaries))
    table("where failures end (final progress)", *metrics.failure_table(result.summaries))
    table("successes under another instruction (final progress)", ("what the robot did", "sarm"), list(result.wrong.items()))
    config = result.weight_result.config
    kappa = f"RA-BC weights, horizon {config.chunk_size} frames, kappa {config.kappa:g} (the mean delta)"
    table(kappa, ("what", "value"), [(name, f"{value:.3f}") for name, value in weight_numbers(result.weight_result).items()])
    say(
        f"time with the report: {sum(result.seconds.values()):.0f} s: " + ", ".join(f"{step} {s:.0f}" for step, s in result.seconds.items())
    )
    for problem in result.problems:
        warn(problem)
    report = result.report.resolve()
    say(f"report: {report}")
    say(f"to open it in a browser: python -m webbrowser {report.as_uri()}")
    say("next, with a dataset of your own: milepost info DATASET")
