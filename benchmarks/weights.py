"""RA-BC weights of a long progress file: seconds per million frames, against one pass of numpy over the same columns and a Python loop.

    python benchmarks/weights.py [--frames 10000000]
    python benchmarks/weights.py --steps
    python benchmarks/weights.py --noise DATASET

The floor is what any method must do: read three columns and write one (here: a difference, a standard deviation, a clip). The loop is
the rule written frame by frame with dictionaries, timed on a hundredth of the frames. `--steps`: what weights add to the training step
of a small policy (a large one's takes a thousand times longer), plain and weighted steps by turns. `--noise`: what noise in the true
progress of a simulated dataset costs, and what smoothing gives back. Good frames go at half of the usual pace or more, bad ones do not
advance; contrast is the mean weight of the good less that of the bad.
"""

from __future__ import annotations

import argparse
import time

import numpy as np
import torch

from milepost.datasets.reader import open_dataset
from milepost.weights.config import RabcConfig
from milepost.weights.deltas import deltas
from milepost.weights.loader import SampleWeights, WeightedSampler
from milepost.weights.result import weigh, weighted_mean
from milepost.weights.rules import usual_pace


def floor(value: np.ndarray) -> np.ndarray:
    """The arithmetic alone, ignoring episodes and missing rows."""
    delta = value[50:] - value[:-50]
    return np.clip((delta - delta.mean()) / delta.std(), 0, 1)


def loop(index: np.ndarray, episode: np.ndarray, value: np.ndarray, horizon: int) -> list[float]:
    """Frame by frame, with dictionaries."""
    progress = dict(zip(index.tolist(), value.tolist(), strict=True))
    last: dict[int, int] = {}
    for i, e in zip(index.tolist(), episode.tolist(), strict=True):
        last[e] = max(last.get(e, i), i)
    return [progress[min(i + horizon, last[e])] - progress[i] for i, e in zip(index.tolist(), episode.tolist(), strict=True)]


def seconds(work: object) -> float:
    """Best of three."""
    times = []
    for _ in range(3):
        start = time.perf_counter()
        work()  # type: ignore[operator]
        times.append(time.perf_counter() - start)
    return min(times)


OPTIONS = {
    "end rescale": {"end": "rescale"},
    "ramp linear": {"ramp": "linear"},
    "statistics task (8 tasks)": {"statistics": "task"},
    "kappa-duration-s": {"kappa_duration_s": 20.0},
    "kappa-pace": {"kappa_pace": 0.5},
    "smooth 11": {"smooth": 11},
    "max-duration-s, min-final": {"max_duration_s": 9.0, "min_final": 0.2},
    "rescale, linear, pace, task, smooth 11": {"end": "rescale", "ramp": "linear", "kappa_pace": 0.5, "statistics": "task", "smooth": 11},
}


def lookups(count: int) -> None:
    """What a training step pays."""
    weights = SampleWeights(np.arange(count), np.random.default_rng(0).random(count, dtype=np.float32))
    print("\n| a training step, batch of 256 | us |\n|---|---|")
    index, loss = torch.randint(0, count, (256,)), torch.rand(256)
    for name, work in {
        "weights[index]": lambda: weights[index],
        "weights[index] and weighted_mean": lambda: weighted_mean(loss, weights[index]),
        "mean, for comparison": lambda: loss.mean(),
        "LeRobot's interface, with the numbers to log": lambda: weights.compute_batch_weights({"index": index}),
    }.items():
        print(f"| {name} | {seconds(lambda w=work: [w() for _ in range(1000)]) * 1000:.0f} |")
    drawn = seconds(lambda: list(WeightedSampler(weights.weight, 100_000)))
    print(f"| a frame drawn by weight (of {count:,}) | {drawn * 10:.2f} |")


def steps(blocks: int = 60, size: int = 50) -> None:
    """Forward, backward and optimiser of the study's policy, with and without weights, in short blocks by turns."""
    torch.manual_seed(0)
    network = torch.nn.Sequential(
        torch.nn.Linear(29, 256), torch.nn.ReLU(), torch.nn.Linear(256, 256), torch.nn.ReLU(), torch.nn.Linear(256, 24)
    )
    optimiser = torch.optim.AdamW(network.parameters(), fused=True)
    count = 100_000
    observation, action = torch.randn(count, 29), torch.randn(count, 24)
    weights = SampleWeights(np.arange(count), np.random.default_rng(0).random(count, dtype=np.float32))

    def block(weighted: bool) -> float:
        start = time.perf_counter()
        for _ in range(size):
            rows = torch.randint(0, count, (64,))
            loss = (network(observation[rows]) - action[rows]).abs().mean(1)
            total = weighted_mean(loss, weights[rows]) if weighted else loss.mean()
            optimiser.zero_grad(set_to_none=True)
            total.backward()
            optimiser.step()
        return (time.perf_counter() - start) / size * 1e6

    block(True)
    plain, weighted = np.array([(block(False), block(True)) for _ in range(blocks)]).T
    draws = np.random.default_rng(0).integers(0, blocks, (2000, blocks))
    low, high = np.quantile(np.median((weighted - plain)[draws], axis=1), [0.025, 0.975])
    print(f"a step of 64: plain {np.median(plain):.0f} us; weights add {np.median(weighted - plain):.0f} us [{low:.0f}, {high:.0f}]")


def noise(path: str) -> None:
    dataset = open_dataset(path)
    episodes = list(dataset)
    index = np.concatenate([np.arange(e.row, e.row + e.length) for e in episodes])
    number = np.repeat([e.index for e in episodes], [e.length for e in episodes])
    task = np.repeat([dataset.tasks.index(e.task) for e in episodes], [e.length for e in episodes])
    truth = np.concatenate([e.columns["truth.progress"].reshape(-1) for e in episodes]).astype(np.float32)
    delta, pace = deltas(index, number, truth, 10, "rescale"), np.zeros(len(truth))
    for each in np.unique(task):
        pace[task == each] = usual_pace(delta[task == each], truth[task == each])
    good, bad = delta >= 0.5 * pace, delta <= 0.05 * pace
    rng = np.random.default_rng(0)
    levels = (0.0, 0.03, 0.1, 0.2)
    curves = [
        np.clip(truth + rng.normal(0, level, len(truth)), 0, 1).astype(np.float32) for level in levels
    ]  # progress stays within 0 and 1
    print(f"{len(truth)} frames, {good.mean():.0%} good, {bad.mean():.0%} bad; a chunk of 10 frames\n")
    print(f"| | {' | '.join(f'noise {level:g}' for level in levels)} |\n|---|{'---|' * len(levels)}")
    paced = {"end": "rescale", "ramp": "linear", "kappa_pace": 0.5, "statistics": "task"}
    for name, options in {"LeRobot's rule, kappa 0.06": {"kappa": 0.06}, "rescale, linear, pace, task": paced}.items():
        for window in (0, 5, 9, 11, 15, 21):
            cells = []
            for curve in curves:
                weight = weigh(index, number, curve, config=RabcConfig(10, smooth=window, **options), task=task).weight
                cells.append(f"{weight[good].mean():.2f} - {weight[bad].mean():.2f} = {weight[good].mean() - weight[bad].mean():.2f}")
            print(f"| {name}{f', smooth {window}' if window else ''} | {' | '.join(cells)} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--frames", type=int, default=10_000_000)
    parser.add_argument("--noise", metavar="DATASET")
    parser.add_argument("--steps", action="store_true")
    arguments = parser.parse_args()
    if arguments.steps:
        steps()
        return
    if arguments.noise:
        noise(arguments.noise)
        return
    count = arguments.frames
    index = np.arange(count)
    episode = index // 300
    value = np.random.default_rng(0).random(count, dtype=np.float32)
    value[::97] = np.nan
    gaps = np.delete(index, np.arange(50, count, 1000))
    few = slice(0, count // 100)
    ours = seconds(lambda: weigh(index, episode, value, config=RabcConfig()))
    rows = [
        ("milepost, every row there", ours),
        ("milepost, one row in a thousand missing", seconds(lambda: weigh(gaps, episode[gaps], value[gaps], config=RabcConfig()))),
        ("floor: the arithmetic alone", seconds(lambda: floor(value))),
        ("frame by frame, with dictionaries", seconds(lambda: loop(index[few], episode[few], value[few], 50)) * 100),
    ]
    task = episode % 8
    for name, options in OPTIONS.items():
        config = RabcConfig(**options)
        rows.append((name, seconds(lambda c=config: weigh(index, episode, value, config=c, task=task, fps=30.0))))
    print(f"| {count:,} frames | s | s per million | ratio |\n|---|---|---|---|")
    for name, took in rows:
        print(f"| {name} | {took:.2f} | {took / count * 1e6:.3f} | {took / ours:.2f} |")
    lookups(count)


if __name__ == "__main__":
    main()
