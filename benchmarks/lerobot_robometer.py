"""Robometer's dense curve here and by LeRobot 0.6.1's own code, on one checkpoint in LeRobot's layout: the same numbers, and the time.

    HF_HUB_OFFLINE=1 lerobot-python benchmarks/lerobot_robometer.py [--frames 64] [--size 480x640] [--hidden 256] [--layers 4]
        [--batch 32] [--rounds 3]

The interpreter is one with `lerobot[robometer]` 0.6.1 and milepost. The checkpoint is random, in float32. LeRobot's loop is the one that
writes its progress files (`compute_rabc_weights`), from images in memory, with its processor and its model; batch is how many frames
it asks about at once. Of several rounds, taken in turns, the fastest counts; the processor's own time is beside the clock's. It exits 1 if
a number of protocol "lerobot" differs by more than 1e-5.
"""

from __future__ import annotations

import argparse
import logging
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

import milepost
from milepost.testing import tiny_robometer

TASK = "pick up the red block"
CAMERA = "observation.images.top"
MOST = 1e-5


def theirs(folder: Path, frames: np.ndarray, batch: int) -> Callable[[], tuple[np.ndarray, np.ndarray]]:
    """Returns LeRobot's loop over all frames of an episode, which returns progress and success."""
    from lerobot.configs.rewards import RewardModelConfig
    from lerobot.lerobot_types import TransitionKey
    from lerobot.rewards.robometer import RobometerRewardModel
    from lerobot.rewards.robometer.compute_rabc_weights import DEFAULT_NUM_SUBSAMPLED_FRAMES, _build_subsample_indices
    from lerobot.rewards.robometer.processor_robometer import RobometerEncoderProcessorStep

    config: Any = RewardModelConfig.from_pretrained(str(folder))
    config.pretrained_path = str(folder)
    model = RobometerRewardModel.from_pretrained(str(folder), config=config).eval()
    encoder = RobometerEncoderProcessorStep(base_model_id=config.base_model_id, image_key=CAMERA, max_frames=DEFAULT_NUM_SUBSAMPLED_FRAMES)
    successes: list[torch.Tensor] = []
    model.success_head.register_forward_hook(lambda _module, _inputs, output: successes.append(output[-1:].sigmoid()))
    images = torch.from_numpy(frames).permute(0, 3, 1, 2).float() / 255  # as LeRobotDataset has them
    places = _build_subsample_indices(len(frames), DEFAULT_NUM_SUBSAMPLED_FRAMES)

    def run() -> tuple[np.ndarray, np.ndarray]:
        successes.clear()
        rewards = []
        for start in range(0, len(frames), batch):
            stack = torch.stack([images[each] for each in places[start : start + batch]])
            transition = {TransitionKey.OBSERVATION: {CAMERA: stack}, TransitionKey.COMPLEMENTARY_DATA: {"task": TASK}}
            with torch.no_grad():
                rewards.append(model.compute_reward(encoder(transition)[TransitionKey.OBSERVATION]))
        return torch.cat(rewards).numpy(), torch.cat(successes).flatten().numpy()

    return run


def ours(folder: Path, frames: np.ndarray, protocol: str, fps: float) -> Callable[[], tuple[np.ndarray, np.ndarray]]:
    """Returns our curve of the same frames, which returns progress and success."""
    state = np.zeros((len(frames), 1), np.float32)
    episode = milepost.Episode(0, 0, TASK, fps, len(frames), state, cameras={CAMERA: frames})
    changes = {"fps": fps} if protocol == "dense" else {}
    model = milepost.RobometerModel(milepost.RobometerConfig(vlm_name=str(folder), frame_protocol=protocol, **changes))
    _ = model.engine

    def run() -> tuple[np.ndarray, np.ndarray]:
        curve = model.predict(episode).main
        return curve.value, curve.signals["success"].values

    return run


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, default=64)
    parser.add_argument("--size", default="480x640")
    parser.add_argument("--hidden", type=int, default=256)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    height, width = map(int, args.size.split("x"))
    coarse = np.random.default_rng(0).integers(0, 256, (args.frames, height // 32, width // 32, 3), dtype=np.uint8)
    frames = coarse.repeat(32, 1).repeat(32, 2)
    seconds: dict[str, list[tuple[float, float]]] = {}
    curves = {}
    with tempfile.TemporaryDirectory() as name:
        folder = tiny_robometer(Path(name) / "robometer", layout="lerobot", hidden=args.hidden, layers=args.layers)
        runs = {
            "LeRobot 0.6.1": theirs(folder, frames, args.batch),
            "milepost, lerobot": ours(folder, frames, "lerobot", 10.0),
            "milepost, dense": ours(folder, frames, "dense", 10.0),
        }
        for _ in range(args.rounds):
            for way, run in runs.items():
                start, busy = time.perf_counter(), time.process_time()
                curves[way] = run()
                seconds.setdefault(way, []).append((time.perf_counter() - start, time.process_time() - busy))
    best = {way: [min(turn[clock] for turn in turns) for clock in range(2)] for way, turns in seconds.items()}
    base = best["LeRobot 0.6.1"]
    print(f"| after each of {args.frames} frames | s | of the processor | times faster |\n|---|---|---|---|")
    for way, (clock, busy) in best.items():
        print(f"| {way} | {clock:.2f} | {busy:.2f} | {base[0] / clock:.1f}, {base[1] / busy:.1f} |")
    off = [float(np.abs(a - b).max()) for a, b in zip(curves["LeRobot 0.6.1"], curves["milepost, lerobot"], strict=True)]
    print(f"\nThe largest difference of progress is {off[0]:.1e}, of success {off[1]:.1e}.")
    ranges = [np.ptp(each) for each in curves["LeRobot 0.6.1"]]
    print(f"LeRobot's progress varies by {ranges[0]:.2f}, its success by {ranges[1]:.2f}.")
    return int(max(off) > MOST)


if __name__ == "__main__":
    sys.exit(main())
