"""Train policies with and without weights, and count the successes of each.

The demonstrations are simulated and of mixed quality.

Every seed has new demonstrations, its own reward model (SARM, from images) and new start scenes; all arms of a seed share them.
After an interruption, the same command continues.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import tyro

from milepost import sim
from milepost.cli.console import bars, say, table
from milepost.core import to_json


@dataclass(frozen=True)
class Args:
    output_dir: Path = Path("milepost-compare")
    """Folder of the demonstrations and of runs.jsonl, which has one line per policy."""
    tasks: Annotated[tuple[str, ...], tyro.conf.arg(help=f"Any of: {', '.join(sim.TASKS)}.")] = ("pick-place-v3",)
    shares: tuple[float, ...] = (0.8,)
    """Proportions of bad demonstrations: slow, hesitating, backtracking, giving up, failing, in equal parts."""
    arms: tuple[str, ...] = ("uniform", "success+short", "rabc-true", "rabc-sarm")
    """Any of: uniform, permuted, short, success, success+short, rabc-true, rabc-sarm, rabc-sarm-lerobot."""
    seeds: int = 3
    first_seed: int = 0
    episodes: int = sim.PoolConfig.episodes
    """Demonstrations that a policy is trained on."""
    annotated: int = sim.PoolConfig.annotated
    """Demonstrations that SARM is trained on; they are different from the policy's."""
    trials: int = sim.CompareConfig.trials
    """Start scenes to try each policy in."""
    steps: int = sim.PolicyConfig.steps
    """Training steps of a policy."""
    chunk_size: int = sim.PolicyConfig.chunk_size
    """Actions that a policy predicts at once; also the horizon of the weights."""
    policy_loss: str = sim.PolicyConfig.loss
    """l1 or flow."""
    json: bool = False


def main(args: Args) -> int:
    """Runs the comparison and prints its tables."""
    sarm = any(map(sim.needs_sarm, args.arms))
    config = sim.CompareConfig(
        tasks=args.tasks,
        shares=args.shares,
        arms=tuple(dict.fromkeys(("uniform", *args.arms))),
        seeds=tuple(range(args.first_seed, args.first_seed + args.seeds)),
        trials=args.trials,
        pool=sim.PoolConfig(args.episodes, args.annotated if sarm else 0),
        policy=sim.PolicyConfig(chunk_size=args.chunk_size, steps=args.steps, loss=args.policy_loss),  # type: ignore[arg-type]
        rabc=sim.rabc_config(args.chunk_size),
    )
    if sarm:
        sim.require_renderer()
    with bars() as bar:
        lines = sim.run(config, args.output_dir, on_progress=bar)
    if args.json:
        say(to_json([_numbers(lines, proportion, config.arms) for proportion in args.shares]))
        return 0
    for proportion in args.shares:
        bad = f"{proportion:.0%} bad, {', '.join(args.tasks)}; 95 % intervals, paired by seed and start scene"
        table(bad, sim.HEADER, sim.rows(lines, proportion, config.arms))
        part = sim.recovered(lines, proportion)
        if part is not None:
            say(f"of the oracle's gain, SARM's progress has {sim.points(part)} %")
    seconds = [line["train_s"] + line["trial_s"] for line in lines]
    say(f"{len(lines)} policies, {np.mean(seconds):.1f} s each; lines: {args.output_dir / 'runs.jsonl'}")
    return 0


def _numbers(lines: list[dict], proportion: float, arms: tuple[str, ...]) -> dict:
    return {
        "share": proportion,
        "arms": {
            arm: {"success": rate.value, "interval": [rate.low, rate.high], "gain": gap.value, "gain_interval": [gap.low, gap.high]}
            for arm, (rate, gap) in sim.rates(lines, proportion, arms).items()
        },
    }
