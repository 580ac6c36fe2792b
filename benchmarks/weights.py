"""RA-BC weights of a long progress file: seconds per million frames, against one pass of numpy over the same columns and a Python loop.

    python benchmarks/weights.py [--frames 10000000]

The floor is what any method must do: read three columns and write one (here: a difference, a standard deviation, a clip). The loop is
the rule written frame by frame with dictionaries, timed on a hundredth of the frames.
"""

from __future__ import annotations

import argparse
import time

import numpy as np

from milepost.weights import RabcConfig, weigh


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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--frames", type=int, default=10_000_000)
    count = parser.parse_args().frames
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
    print(f"| {count:,} frames | s | s per million | ratio |\n|---|---|---|---|")
    for name, took in rows:
        print(f"| {name} | {took:.2f} | {took / count * 1e6:.3f} | {took / ours:.2f} |")


if __name__ == "__main__":
    main()
