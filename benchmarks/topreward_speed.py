"""A clip's dense curve, an answer a frame: how long, beside LeRobot 0.6.1's own loop and one bare forward, and the same numbers?

    python benchmarks/topreward_speed.py --model FOLDER --lerobot-python PYTHON [--frames 16 32 64 128 256] [--rounds 5] [--json FILE]

FOLDER is a Qwen3-VL with all its processor files; PYTHON an interpreter with lerobot[topreward], which loads nothing of milepost. Random
224 x 224 frames, float32, 2 threads, each measurement in a process of its own, ours and LeRobot's in turns. LeRobot's is its own
`compute_instruction_rewards_for_prefixes`, once a length above 64 frames. "Bare" is the model's own forward of the whole clip, its
inputs ready. Of several rounds the fastest counts, as other work on the machine only adds. Language tokens are counted where they enter
the network. Exits 1 if a log-probability differs by more than 1e-4.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

TASK, KEY, FPS, SIDE, ALLOWED = "pick up the hammer and drive the nail into the wall", "observation.images.top", 2.0, 224, 1e-4


def frames_of(count: int) -> np.ndarray:
    """Blobs that change from frame to frame, (count, 224, 224, 3) uint8."""
    coarse = np.random.default_rng(count).integers(0, 256, (count, 7, 7, 3), dtype=np.uint8)
    return coarse.repeat(SIDE // 7, 1).repeat(SIDE // 7, 2)


def timed(run: Callable[[], Any], rounds: int) -> tuple[dict[str, float], Any]:
    """Seconds of the clock and of the processor (both threads together) in the fastest round, and what the last round gave."""
    spent = []
    for _ in range(rounds):
        start, busy = time.perf_counter(), time.process_time()
        result = run()
        spent.append((time.perf_counter() - start, time.process_time() - busy))
    return dict(zip(("seconds", "processor"), map(min, zip(*spent, strict=True)), strict=True)), result


def lerobot(model: str, count: int, rounds: int) -> dict[str, Any]:
    """LeRobot's loop over every prefix. Nothing is uploaded: only its command line does that."""
    from lerobot.rewards.topreward import compute_rabc_weights as theirs

    config = theirs.TOPRewardConfig(vlm_name=model, device="cpu", fps=FPS)
    network = theirs.TOPRewardModel(config).eval()
    encoder = theirs.TOPRewardEncoderProcessorStep(vlm_name=model, image_key=KEY, max_frames=None, fps=FPS)
    lengths: list[int] = []
    raw: list[float] = []
    reward = network.compute_reward

    def noted(batch: dict[str, Any]) -> torch.Tensor:
        said = reward(batch)
        lengths.append(batch["observation.topreward.input_ids"].shape[1] - 1)  # the answer is fed in as well, and is not needed
        raw.append(float(said))
        return said

    network.compute_reward = noted

    def curve(number: int) -> np.ndarray:
        lengths.clear()
        raw.clear()
        pictures = torch.from_numpy(frames_of(number)).permute(0, 3, 1, 2).contiguous()
        dataset = [{KEY: picture} for picture in pictures]
        return theirs.compute_instruction_rewards_for_prefixes(
            model=network, encoder=encoder, dataset=dataset, ep_start=0, num_frames=number, task=TASK, image_key=KEY, num_samples=None,
            device="cpu",
        )  # fmt: skip

    curve(8)
    spent, progress = timed(lambda: curve(count), rounds)
    return {**spent, "lengths": lengths, "raw": raw, "curve": progress.tolist()}


def ours(model: str, count: int, rounds: int) -> dict[str, Any]:
    """The shared pass over every prefix, and one forward of the whole clip."""
    from milepost.vlm.loading import load_engine
    from milepost.vlm.patches import Resolution

    engine = load_engine(model)
    read = [0]
    engine.networks.text.embed_tokens.register_forward_hook(lambda _, args, __: read.__setitem__(0, read[0] + args[0].numel()))

    def curve(number: int) -> np.ndarray:
        read[0] = 0
        clip = engine.clip(frames_of(number), fps=FPS, resolution=Resolution("lerobot"))
        return engine.score(clip, instructions=[TASK])[0, :, 0]

    curve(8)
    spent, raw = timed(lambda: curve(count), rounds)
    tokens, peak = read[0], resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    whole = raw.astype(np.float64)
    marks: list[float] = []
    engine.networks.model.register_forward_pre_hook(lambda *_: marks.append(-time.perf_counter()))
    engine.networks.model.register_forward_hook(lambda *_: marks.__setitem__(-1, marks[-1] + time.perf_counter()))
    clip = engine.clip(frames_of(count), fps=FPS, resolution=Resolution("lerobot"))
    for _ in range(rounds + 1):
        alone = engine.separate(clip, instructions=[TASK], prefixes=[count])
    question = len(engine._prompt_tokens.question(TASK, ["True"])[0])
    return {
        **spent, "bare": min(marks), "tokens": tokens, "question": question, "peak_mb": peak,
        "raw": raw.tolist(), "curve": ((whole - whole.min()) / (whole.max() - whole.min())).tolist(), "alone": float(alone[0, 0, 0]),
    }  # fmt: skip


def needed(lengths: list[int], question: int) -> int:
    """Language tokens nobody can do without: the clip once, the last group of each odd prefix, every question. lengths: of each prefix."""
    before = [0, *(length - question for length in lengths)]
    even = 2 * (len(lengths) // 2)
    odd = sum(before[n] - before[n - 1] for n in range(1, len(before), 2))
    return before[even] + odd + len(lengths) * question


# The comparison


def child(python: str, part: str, model: str, *words: int) -> dict[str, Any]:
    """One measurement in a process of its own; what it prints last is its result."""
    settings = {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "2", "OMP_WAIT_POLICY": "PASSIVE", "TOKENIZERS_PARALLELISM": "false"}
    words_too = [part, model, *map(str, words)]
    done = subprocess.run([python, __file__, *words_too], env={**os.environ, **settings}, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{' '.join(words_too)} failed:\n{done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def compare(model: str, python: str, counts: list[int], rounds: int) -> list[dict[str, Any]]:
    rows = []
    print("| frames | ours, s | LeRobot, s | LeRobot : ours | of the processor | bare forward, s | ours : bare | "
          "tokens | of needed | LeRobot's : ours | largest difference: nats | curve |\n|" + "---|" * 12)  # fmt: skip
    for count in counts:
        us, them = child(sys.executable, "ours", model, count, rounds), child(python, "lerobot", model, count, rounds if count <= 64 else 1)
        must = needed(them["lengths"], us["question"])
        off = {name: float(np.abs(np.subtract(us[name], them[name])).max()) for name in ("raw", "curve")}
        rows.append({"frames": count, "ours": us, "lerobot": them, "needed": must, "off": off})
        print(
            f"| {count} | {us['seconds']:.3f} | {them['seconds']:.2f} | {them['seconds'] / us['seconds']:.1f} | "
            f"{them['processor'] / us['processor']:.1f} | {us['bare']:.3f} | "
            f"{us['seconds'] / us['bare']:.2f} | {us['tokens']} | {us['tokens'] / must:.3f} | {sum(them['lengths']) / us['tokens']:.1f} | "
            f"{off['raw']:.1e} | {off['curve']:.1e} |", flush=True,
        )  # fmt: skip
    return rows


def growth(rows: list[dict[str, Any]]) -> None:
    """How seconds grow with frames: a line, how far it is off, and what a square term would be."""
    x = np.array([row["frames"] for row in rows], np.float64)
    for name, clock in itertools.product(("ours", "lerobot"), ("seconds", "processor")):
        y = np.array([row[name][clock] for row in rows])
        slope, start = np.polyfit(x, y, 1)
        left = slope * x + start - y
        off = ", ".join(f"{each:+.3f}" for each in left)
        bent, power = np.polyfit(x, y, 2), np.polyfit(np.log(x), np.log(y), 1)[0]
        print(f"\n{name}, {clock}: {1000 * slope:.2f} ms a frame {1000 * start:+.0f} ms, R^2 {1 - left.var() / y.var():.4f}")
        print(f"off by {off} s; with a square term {1000 * bent[1]:.2f} ms a frame {1e6 * bent[0]:+.1f} us a frame squared")
        print(f"frames to the power {power:.2f}")


def main() -> int:
    torch.set_num_threads(2)
    if sys.argv[1:2] in (["ours"], ["lerobot"]):
        part, model, count, rounds = sys.argv[1:5]
        print("\n" + json.dumps({"ours": ours, "lerobot": lerobot}[part](model, int(count), int(rounds))))
        return 0
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--lerobot-python", required=True)
    parser.add_argument("--frames", type=int, nargs="+", default=[16, 32, 64, 128, 256])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path)
    words = parser.parse_args()
    rows = compare(str(Path(words.model).resolve()), words.lerobot_python, words.frames, words.rounds)
    if len(rows) > 2:
        growth(rows)
    if words.json:
        words.json.write_text(json.dumps(rows) + "\n")
    return 0 if all(row["off"]["raw"] <= ALLOWED for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
