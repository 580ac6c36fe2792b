"""`milepost label --ray` beside one process: what Ray costs on one worker, and what a second one brings.

    python benchmarks/ray_speed.py [--load decode|encode] [--episodes 24] [--frames 300] [--rounds 3] [--codec libsvtav1] [--output FILE]

The episodes have pictures of 480 x 640. The load "decode": a model that reads every frame and does next to nothing with it. "encode": a
network of about 40 ms a frame on a core, asked at every tenth frame. In each round one process with one thread, `--ray --actors 1` and
`--ray --actors 2` label in turn, as commands of their own; the order turns from round to round. The model notes when it begins and ends an
episode, so the rate has two forms: **steady**, frames of all episodes but the first of each process, over the time in which all processes
worked; and **total**, with the start of Python, Ray and the processes. The machine must have nothing else to do; the load is printed.

`--profile` runs the work of one worker in this process instead, with nothing to do, and prints what each share and each episode costs.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from ray_world import environment, install, notes

CAMERA, FPS, SIZE = "observation.images.top", 30, (480, 640)
WAYS = {"one process": (), "--ray --actors 1": ("--ray", "--actors", "1"), "--ray --actors 2": ("--ray", "--actors", "2")}
SHARES = (1, 4, 16)


def pictures(count: int, seed: int) -> Iterator[np.ndarray]:
    """Yields pictures that move, with noise on a part, so that a codec has something to do."""
    rng = np.random.default_rng(seed)
    ground = rng.integers(0, 200, (SIZE[0] // 8, SIZE[1] // 8, 3), dtype=np.uint8).repeat(8, 0).repeat(8, 1)
    for number in range(count):
        picture = np.roll(ground, 2 * number, axis=1)
        picture[100:200, 100:200] += rng.integers(0, 40, (100, 100, 1), dtype=np.uint8)
        yield picture


def write(folder: Path, episodes: int, frames: int, codec: str) -> None:
    """Writes the dataset. Eight different films serve all episodes, because encoding takes longer than the benchmark."""
    from milepost.datasets import Recording, write_dataset

    def recording(number: int) -> Recording:
        state = np.random.default_rng(number).standard_normal((frames, 7)).astype(np.float32)
        return Recording("slide the block", state, state[:, :2], {CAMERA: pictures(frames, number % 8)})

    write_dataset(folder, map(recording, range(episodes)), fps=FPS, codec=codec)


def label(folder: Path, words: tuple[str, ...], load: str) -> dict[str, float]:
    """Labels with one way and returns its rates in frames a second, and its seconds."""
    variables = environment(folder, sleep_s=0.0)
    variables |= {"OMP_NUM_THREADS": "1", "NOTED_LOAD": load, "MILEPOST_CACHE": str(folder / "cache")}
    (folder / "log").unlink(missing_ok=True)
    line = [sys.executable, "-m", "milepost", "label", "films", "--model", "noted", "--output-path", "p.parquet", "--overwrite", *words]
    begun, clock = time.time(), time.monotonic()
    done = subprocess.run(line, cwd=folder, env=variables, capture_output=True, text=True)
    total = time.monotonic() - clock
    if done.returncode != 0:
        raise RuntimeError(done.stderr[-3000:])
    return {"total_s": total, **rates(folder / "log", begun)}


def rates(log: Path, begun: float) -> dict[str, float]:
    """Returns the episodes a second, of all processes while each of them worked, and the seconds before the first and after the last."""
    of_process = dict[int, list[float]]()
    every = notes(log)
    for each in every:
        if each.word == "end":
            of_process.setdefault(each.pid, []).append(each.time)
    start, stop = max(min(times) for times in of_process.values()), min(max(times) for times in of_process.values())
    done = sum(start < each <= stop for times in of_process.values() for each in times)
    return {
        "processes": len(of_process),
        "steady": done / max(stop - start, 1e-9),
        "before_s": every[0].time - begun,
        "after_s": time.time() - every[-1].time,
    }


def run(folder: Path, load: str, frames: int, episodes: int, rounds: int) -> list[dict]:
    """Runs the rounds and returns a row for each run."""
    rows, ways = list[dict](), list(WAYS)
    for turn in range(rounds):
        for way in ways[turn % len(ways) :] + ways[: turn % len(ways)]:
            measured = label(folder, WAYS[way], load)
            row = {"load": load, "way": way, "round": turn, "frames": frames, "episodes": episodes, "machine_load": os.getloadavg()[0]}
            row |= {name: round(value, 3) for name, value in measured.items()}
            row |= {"steady_fps": round(measured["steady"] * frames, 1), "total_fps": round(episodes * frames / measured["total_s"], 1)}
            rows.append(row)
            print(json.dumps(row), flush=True)
    return rows


def report(rows: list[dict]) -> None:
    """Prints the table of docs/ray.md: medians over the rounds, and each round's quotient with one process in the same round."""
    print("| | frames/s, steady | beside one process (least to most) | frames/s in all | before the first episode | after the last |")
    print("|---|---|---|---|---|---|")
    alone = {row["round"]: row["steady_fps"] for row in rows if row["way"] == "one process"}
    for way in WAYS:
        mine = [row for row in rows if row["way"] == way]
        beside = [row["steady_fps"] / alone[row["round"]] for row in mine]
        middle = {name: statistics.median(row[name] for row in mine) for name in ("steady_fps", "total_fps", "before_s", "after_s")}
        print(
            f"| {way} | {middle['steady_fps']:.0f} | {statistics.median(beside):.2f} ({min(beside):.2f} to {max(beside):.2f}) | "
            f"{middle['total_fps']:.0f} | {middle['before_s']:.1f} s | {middle['after_s']:.1f} s |"
        )
    loads = [row["machine_load"] for row in rows]
    print(f"{os.cpu_count()} cores; load average at the end of a run {min(loads):.1f} to {max(loads):.1f}")


def empty() -> object:
    """Returns work that does nothing, and answers with as much as an episode of 300 frames has."""
    return lambda item: bytes(6000)


def profile() -> None:
    """Prints what Ray costs for each share of items and each item, on one actor that has nothing to do."""
    from milepost.scale import Cluster, spread, work

    cluster = Cluster(actors=(1, 1))
    with cluster.joined():
        for count in SHARES:
            work.FEW_AT_ONCE = count
            items, times = range(100 * count), list[float]()
            begun = time.monotonic()
            for _ in spread(cluster, empty, items):
                times.append(time.monotonic())
            took = 1000 * (times[-1] - times[0])
            each = took / (len(items) - count)
            print(
                f"{count} at once: {took / 99:.1f} ms a share, {each:.2f} ms an item; the first after {times[0] - begun:.1f} s", flush=True
            )


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--load", choices=("decode", "encode"), default="decode")
    parser.add_argument("--episodes", type=int, default=24)
    parser.add_argument("--frames", type=int, default=300)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--codec", default="libsvtav1")
    parser.add_argument("--output", type=Path)
    parser.add_argument("--profile", action="store_true")
    args = parser.parse_args()
    if args.profile:
        profile()
        return
    with tempfile.TemporaryDirectory(prefix="rs") as name:
        folder = Path(name)
        install(folder / "site")
        write(folder / "films", args.episodes, args.frames, args.codec)
        rows = run(folder, args.load, args.frames, args.episodes, args.rounds)
    if args.output is not None:
        args.output.write_text("".join(json.dumps(row) + "\n" for row in rows))
    report(rows)


if __name__ == "__main__":
    os.environ.pop("RAY_ADDRESS", None)
    main()
