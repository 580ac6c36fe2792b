"""What sharing a clip saves: 15 anchors of 300 frames, many instructions, a stream, memory. The tiny checkpoint, float32, 2 threads.

    python benchmarks/topreward_shared.py --model FOLDER [--rounds 5] [--json FILE] [PART ...]

FOLDER is a Qwen3-VL. PART is anchors, instructions, stream or memory; all by default, each in a process of its own. Random 224 x 224
frames, 49 tokens a pair. Language tokens are counted where they enter the network. Of several rounds, taken in turns, the
fastest counts, as other work on the machine only adds. No bar is checked here: the tables say what came.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

TASKS = (
    "pick up the hammer and drive the nail into the wall", "slide the window open", "drive the nail into the wall", "pick up the hammer",
    "pick up the nail and slide the window open", "slide the hammer into the wall", "drive the window into the wall", "pick up the window",
)  # fmt: skip
"""Words the tiny tokenizer knows whole, so that an instruction has about as many tokens as in the published one."""
FPS, SIDE = 2.0, 224


def frames_of(count: int, size: tuple[int, int] = (SIDE, SIDE)) -> np.ndarray:
    """Blobs that change from frame to frame, (count, H, W, 3) uint8; sides divisible by 32."""
    coarse = np.random.default_rng(count).integers(0, 256, (count, size[0] // 32, size[1] // 32, 3), dtype=np.uint8)
    return coarse.repeat(32, 1).repeat(32, 2)


def anchors_of(count: int, anchors: int = 15) -> list[int]:
    """Prefix lengths from 1 to `count`, evenly spaced."""
    return sorted({int(n) for n in np.linspace(1, count, anchors).round()})


class Counted:
    """An engine, and how many tokens entered its language model."""

    def __init__(self, model: str) -> None:
        from milepost.vlm.loading import load_engine

        self.engine = load_engine(model)
        self.read = 0
        self.engine.networks.text.embed_tokens.register_forward_hook(self._count)
        self.score(frames_of(8), TASKS[:2])

    def _count(self, _: torch.nn.Module, args: tuple[torch.Tensor], __: torch.Tensor) -> None:
        self.read += args[0].numel()

    def score(self, frames: np.ndarray, tasks: tuple[str, ...], prefixes: list[int] | None = None, path: str = "score") -> tuple:
        """(seconds, seconds of the processor, tokens, answers) of a clip never seen before."""
        self.read, start, busy = 0, time.perf_counter(), time.process_time()
        clip = self.engine.clip(frames, fps=FPS)
        said = getattr(self.engine, path)(clip, instructions=list(tasks), prefixes=prefixes)
        return time.perf_counter() - start, time.process_time() - busy, self.read, said


def anchors(model: str, rounds: int) -> dict[str, Any]:
    """15 anchors over 300 frames, shared and separate."""
    counted, frames, lengths = Counted(model), frames_of(300), anchors_of(300)
    turns = [[counted.score(frames, TASKS[:1], lengths, path) for path in ("score", "separate")] for _ in range(rounds)]
    (*_, shared, ours), (*_, separate, theirs) = turns[-1]
    seconds, busy = ([min(turn[i][clock] for turn in turns) for i in range(2)] for clock in range(2))
    off = float(np.abs(ours - theirs).max())
    print("| 15 anchors over 300 frames | language tokens | s | of the processor |\n|---|---|---|---|")
    print(f"| shared | {shared} | {seconds[0]:.2f} | {busy[0]:.2f} |\n| separate | {separate} | {seconds[1]:.2f} | {busy[1]:.2f} |")
    print(f"| ratio | {separate / shared:.2f} | {seconds[1] / seconds[0]:.2f} | {busy[1] / busy[0]:.2f} |")
    print(f"\nLargest difference {off:.1e} nats.")
    return {"tokens": [shared, separate], "seconds": seconds, "processor": busy, "off": off}


def instructions(model: str, rounds: int) -> dict[str, Any]:
    """N instructions over one: 64 frames dense, 15 anchors of them, and 24 larger frames."""
    counted, found, counts = Counted(model), {}, (1, 2, 4, 8)
    cases = (("64 frames, dense", 64, (SIDE, SIDE), None), ("64 frames, 15 anchors", 64, (SIDE, SIDE), anchors_of(64)),
             ("24 frames of 480 x 640, dense", 24, (480, 640), None))  # fmt: skip
    print("| clip | instructions | s | over one | of the processor | of language tokens | allowed |\n|---|---|---|---|---|---|---|")
    for name, length, size, lengths in cases:
        frames = frames_of(length, size)
        turns = [[counted.score(frames, TASKS[:count], lengths)[:3] for count in counts] for _ in range(rounds)]
        best = np.array(turns).min(axis=0)
        for count, (seconds, _, _), over in zip(counts, best, best / best[0], strict=True):
            print(f"| {name} | {count} | {seconds:.3f} | {over[0]:.2f} | {over[1]:.2f} | {over[2]:.2f} | {1 + 0.15 * count:.2f} |")
        found[name] = best.tolist()
    return found


def stream(model: str, rounds: int) -> dict[str, Any]:
    """Time of a step over the length; the same numbers as the whole clip's."""
    counted, frames = Counted(model), frames_of(300)
    spent, busy = np.zeros((2, rounds, len(frames)))
    read = np.zeros(len(frames), int)
    for turn in range(rounds):
        streamed, said = counted.engine.stream(instructions=[TASKS[0]], fps=FPS), []
        for i, frame in enumerate(frames):
            counted.read, start, start_busy = 0, time.perf_counter(), time.process_time()
            said.append(streamed.append(frame)[0, 0])
            spent[turn, i], busy[turn, i], read[i] = time.perf_counter() - start, time.process_time() - start_busy, counted.read
    whole = counted.score(frames, TASKS[:1])[-1][0, :, 0]
    steps, busy_steps = spent.min(axis=0), busy.min(axis=0)
    print("| frames so far | ms a frame | of the processor | tokens a frame |\n|---|---|---|---|")
    spans = [(a, a + 20) for a in (10, 60, 130, 200, 280)]
    for a, b in spans:
        print(f"| {a + 1} to {b} | {1000 * steps[a:b].mean():.1f} | {1000 * busy_steps[a:b].mean():.1f} | {read[a:b].mean():.1f} |")
    off = float(np.abs(np.array(said) - whole).max())
    print(f"\nAll 300 frames {steps.sum():.2f} s. Largest difference from the whole clip {off:.1e} nats.")
    return {"ms": (1000 * steps).round(3).tolist(), "tokens": read.tolist(), "off": off}


def memory(model: str, rounds: int) -> dict[str, Any]:
    """Peak resident memory of a dense curve of 300 frames; one round, as a peak has no median."""
    found = {}
    print("| dense curve | MB with the model | MB at the peak | MB above |\n|---|---|---|---|")
    for count in (75, 150, 300, 600):  # each length has its peak above the last one's
        counted = Counted(model) if not found else counted
        frames = frames_of(count)
        before = now_mb()
        counted.score(frames, TASKS[:1])
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(f"| {count} frames | {before:.0f} | {peak:.0f} | {peak - before:.0f} |")
        found[str(count)] = {"before_mb": before, "peak_mb": peak}
    return found


def now_mb() -> float:
    """Resident memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / 2**20


PARTS = {each.__name__: each for each in (anchors, instructions, stream, memory)}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", metavar="PART")
    parser.add_argument("--model", required=True)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path)
    words = parser.parse_args()
    if unknown := set(words.parts) - set(PARTS):
        parser.error(f"the parts are {', '.join(PARTS)}, not {unknown}")
    torch.set_num_threads(2)
    if len(words.parts) == 1:
        found = PARTS[words.parts[0]](words.model, words.rounds)
        if words.json:
            words.json.write_text(json.dumps(found) + "\n")
        return 0
    for part in words.parts or PARTS:
        more = ["--json", str(words.json.with_suffix(f".{part}.json"))] if words.json else []
        environment = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "2", "OMP_WAIT_POLICY": "PASSIVE"}
        print(f"\n{part}\n", flush=True)
        settings = ["--model", words.model, "--rounds", str(words.rounds), *more]
        subprocess.run([sys.executable, __file__, part, *settings], env=environment, check=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
