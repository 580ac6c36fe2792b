"""The whole journey on simulated demonstrations: simulate, train, label, weigh, report. Interrupted, the same command goes on."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from milepost import metrics, sim
from milepost.cli.console import bars, say, table, warn
from milepost.cli.journey import DemoConfig, DemoResult, Journey, remove_demo, weight_numbers
from milepost.core import to_json


@dataclass(frozen=True)
class Args:
    output_dir: Path = Path("milepost-demo")
    """Everything lands here: dataset, models, weights, report."""
    tasks: tuple[str, ...] = DemoConfig.tasks
    """Any of: assembly-v3, drawer-open-v3, peg-insert-side-v3, pick-place-v3, shelf-place-v3."""
    successes: int = DemoConfig.successes
    """Successful episodes a task."""
    failures: int = DemoConfig.failures
    """Failed episodes a task."""
    holdout: float = DemoConfig.holdout
    """Share of the start scenes kept out of training."""
    steps: int = DemoConfig.steps
    """Training steps of the staged model; the single-stage one takes half."""
    chunk_size: int = DemoConfig.chunk_size
    """Horizon of the weights in frames; the episodes are short."""
    seed: int = 0
    workers: int = 2
    overwrite: bool = False
    """Throw away a demo that is already in the folder and begin again. Other files in the folder stay."""
    json: bool = False


def main(args: Args) -> int:
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
    """The tables the demo ends with, and where the report is."""
    table("held-out demonstrations (95 % intervals over episodes)", *metrics.summary_table(result.summaries))
    table("where failures end (final progress)", *metrics.failure_table(result.summaries))
    table("successes under another instruction (final progress)", ("what the robot did", "sarm"), list(result.wrong.items()))
    kappa = f"RA-BC weights, horizon {result.weighed.config.chunk_size} frames, kappa {result.weighed.config.kappa:g} (the mean delta)"
    table(kappa, ("what", "value"), [(name, f"{value:.3f}") for name, value in weight_numbers(result.weighed).items()])
    say(f"{sum(result.seconds.values()):.0f} s: " + ", ".join(f"{step} {s:.0f}" for step, s in result.seconds.items()))
    for problem in result.problems:
        warn(problem)
    say(f"report: {result.report.resolve()}")
