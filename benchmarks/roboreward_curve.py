"""RoboReward's dense curve: all prefixes of an episode in one reading, beside one pass of the published forward a prefix.

    python benchmarks/roboreward_curve.py [--frames 64] [--size 480x640] [--hidden 256] [--layers 4] [--rounds 3]

The checkpoint is a random Qwen3-VL of the shape given, in float32. Its tokenizer makes a token of each byte, so the rubric is cut to
about as many tokens as the published tokenizer makes of all of it. Of several rounds, taken in turns, the fastest counts; the processor's
own time is beside the clock's.
"""

from __future__ import annotations

import argparse
import tempfile
import time

import numpy as np

from milepost.models.roboreward.config import GRADES, OPENING, RUBRIC
from milepost.models.roboreward.model import expected_grade
from milepost.testing import tiny_vlm
from milepost.vlm import Prompt
from milepost.vlm.loading import load_engine

RUBRIC_TOKENS = 235
"""Of the rubric, in the published tokenizer, about."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, default=64)
    parser.add_argument("--size", default="480x640")
    parser.add_argument("--hidden", type=int, default=256)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    height, width = map(int, args.size.split("x"))
    coarse = np.random.default_rng(0).integers(0, 256, (args.frames, height // 32, width // 32, 3), dtype=np.uint8)
    frames = coarse.repeat(32, 1).repeat(32, 2)
    with tempfile.TemporaryDirectory() as folder:
        vlm = tiny_vlm(folder, hidden=args.hidden, layers=args.layers)
        engine = load_engine(vlm).with_prompt(Prompt("", RUBRIC[:RUBRIC_TOKENS] + " {instruction}", chat_template=True, opening=OPENING))
    seconds: dict[str, list[tuple[float, float]]] = {"score": [], "separate": []}
    grades = {}
    for _ in range(args.rounds):
        for path, times in seconds.items():
            start, busy = time.perf_counter(), time.process_time()
            clip = engine.clip(frames, fps=1.0)
            grades[path] = expected_grade(getattr(engine, path)(clip, instructions=["pick up the red block"], answers=GRADES)[0])[0]
            times.append((time.perf_counter() - start, time.process_time() - busy))
    shared, separate = ([min(turn[clock] for turn in seconds[path]) for clock in range(2)] for path in ("score", "separate"))
    off = float(np.abs(grades["score"] - grades["separate"]).max())
    print(f"| all prefixes of {args.frames} frames | s | of the processor |\n|---|---|---|")
    print(f"| one reading | {shared[0]:.2f} | {shared[1]:.2f} |\n| a pass a prefix | {separate[0]:.2f} | {separate[1]:.2f} |")
    print(f"| ratio | {separate[0] / shared[0]:.1f} | {separate[1] / shared[1]:.1f} |")
    print(f"\nThe largest difference of a grade is {off:.1e}.")


if __name__ == "__main__":
    main()
