"""A model server that divides episodes into stages from a known truth, with stated noise and faults; and a dataset whose truth is known.

It knows an episode by its duration, which the question tells, and the head by the list of names. Noise depends on what is shown and on
which try it is, so the same question always gets the same answer, as a greedy model's would.
"""

from __future__ import annotations

import json
import re
import threading
import time
import zlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from builders import TOP, WRIST, moving
from milepost.core import HEADS
from milepost.core.types import Segment
from milepost.datasets.recording import Recording
from milepost.datasets.writer import write_dataset
from milepost.testing import Fault

FPS = 20
NAMES = {"sparse": ("reach", "lift", "place"), "dense": ("approach", "grasp", "raise", "carry", "set down")}
Truth = Mapping[int, Mapping[str, tuple[Segment, ...]]]


class Words:
    """What chat_server counts tokens with."""

    def answer(self, body: Mapping[str, Any]) -> tuple[list[tuple[str, float]], int]:
        return [("x", 0.0)], len(body["messages"])


def truth_of(lengths: Sequence[int], *, seed: int = 0, failed: Sequence[int] = ()) -> Truth:
    """Stages of at least 0.6 s; a failed attempt stops before the last one. The sparse borders are dense ones."""
    rng = np.random.default_rng(seed)
    found = {}
    for number, length in enumerate(lengths):
        shares = 0.5 + rng.random(5)
        cuts = np.rint(np.cumsum(shares / shares.sum()) * length).astype(int)
        dense = [Segment(name, int(a), int(b)) for name, a, b in zip(NAMES["dense"], [0, *cuts[:-1]], cuts, strict=True)]
        sparse = [(0, cuts[1]), (cuts[1], cuts[3]), (cuts[3], cuts[4])]
        stages = [Segment(name, int(a), int(b)) for name, (a, b) in zip(NAMES["sparse"], sparse, strict=True)]
        if number in failed:
            dense, stages = dense[:3], stages[:2]
            dense[-1], stages[-1] = (Segment(each[-1].name, each[-1].start, length) for each in (dense, stages))
        found[number] = {"sparse": tuple(stages), "dense": tuple(dense)}
    return found


def dataset_of(root: Path, lengths: Sequence[int], truth: Truth, *, failed: Sequence[int] = ()) -> Path:
    """A v3.0 dataset of two cameras that tells the sparse truth as the simulator does."""
    recordings = []
    for number, length in enumerate(lengths):
        stage = np.zeros(length, np.int64)
        for segment in truth[number]["sparse"]:
            stage[segment.start : segment.stop] = NAMES["sparse"].index(segment.name)
        columns = {
            "truth.stage": stage,
            "truth.progress": np.linspace(0, 1, length, dtype=np.float32),
            "next.success": np.zeros(length, bool),
        }
        frames = {camera: moving(length, seed=number, height=48, width=64) for camera in (TOP, WRIST)}
        facts = {"success": number not in failed}
        state = np.random.default_rng(number).normal(size=(length, 3)).astype(np.float32)
        recordings.append(Recording(f"stack cube {number % 2}", state, state[:, :2], frames, columns=columns, facts=facts))
    write_dataset(root, recordings, fps=FPS, codec="libx264", proportions=None)
    return root


class Annotator:
    """fault: (episode, head, try from 0) -> what goes wrong, a key of `FAULTS` or "". `asked` counts questions by episode and head.

    Give it to `chat_server(model=Words(), script=annotator)`; its model is called "tiny". on_answer: called with each episode answered.
    """

    def __init__(
        self,
        truth: Truth,
        lengths: Sequence[int],
        *,
        noise_s: float = 0.0,
        fault: Callable[[int, str, int], str] = lambda episode, head, attempt: "",
        latency_s: float = 0.0,
    ) -> None:
        self.truth, self.noise_s, self.fault, self.latency_s = truth, noise_s, fault, latency_s
        self.durations = {f"{length / FPS:.2f}": number for number, length in enumerate(lengths)}
        assert len(self.durations) == len(lengths), "episodes are known by their duration"
        self.lock = threading.Lock()
        self.asked: list[tuple[int, str, int]] = []
        self.refused: set[tuple[int, str]] = set()
        self.on_question: Callable[[int], None] = lambda count: None

    def __call__(self, number: int, body: dict[str, Any]) -> Fault:
        episode, head, attempt = self.about(body)
        with self.lock:
            self.asked.append((episode, head, attempt))
            count = len(self.asked)
            first = (episode, head) not in self.refused
            self.refused.add((episode, head))
        self.on_question(count)
        time.sleep(self.latency_s)
        kind = self.fault(episode, head, attempt)
        if kind == "429 once" and first:
            return Fault(429, "slow down", {"Retry-After": "0"})
        if kind.isdigit():
            return Fault(int(kind), "no")
        pictures = [part["image_url"]["url"] for part in body["messages"][0]["content"] if part["type"] == "image_url"]
        seen = zlib.crc32("".join(pictures).encode())
        said, finish = FAULTS.get(kind, plainly)(self.claims(episode, head, np.random.default_rng((seen, attempt))))
        choice = {"index": 0, "finish_reason": finish, "message": {"role": "assistant", "content": said}}
        return Fault(raw=json.dumps({"choices": [choice], "usage": {"prompt_tokens": 100, "completion_tokens": len(said)}}))

    def about(self, body: Mapping[str, Any]) -> tuple[int, str, int]:
        """(episode, head, how many answers came before)."""
        words = "".join(part["text"] for part in body["messages"][0]["content"] if part["type"] == "text")
        found = re.search(r"The recording lasts ([\d.]+) seconds", words)
        assert found
        listed = tuple(re.findall(r'^\d+\. "(.*?)"', words, re.MULTILINE))
        head = next(head for head in HEADS if listed == NAMES[head])
        return self.durations[found[1]], head, sum(turn["role"] == "assistant" for turn in body["messages"])

    def claims(self, episode: int, head: str, rng: np.random.Generator) -> list[dict[str, Any]]:
        """The truth in seconds, inner borders moved by at most `noise_s`."""
        segments = self.truth[episode][head]
        borders = [segment.start / FPS for segment in segments] + [segments[-1].stop / FPS]
        borders[1:-1] = [time_s + float(rng.uniform(-self.noise_s, self.noise_s)) for time_s in borders[1:-1]]
        times = [round(time_s, 3) for time_s in borders]
        return [{"name": s.name, "start": a, "end": b} for s, a, b in zip(segments, times[:-1], times[1:], strict=True)]


Claims = list[dict[str, Any]]


def plainly(claims: Claims) -> tuple[str, str]:
    return json.dumps({"subtasks": claims}), "stop"


def wrong_name(claims: Claims) -> tuple[str, str]:
    return plainly([{**claims[0], "name": "juggle"}, *claims[1:]])


def gap(claims: Claims) -> tuple[str, str]:
    """Of 0.2 s around the first border: small enough to be closed in its middle."""
    return plainly([{**claims[0], "end": claims[0]["end"] - 0.1}, {**claims[1], "start": claims[1]["start"] + 0.1}, *claims[2:]])


def hole(claims: Claims) -> tuple[str, str]:
    """The second stage is left out."""
    return plainly([claims[0], *claims[2:]])


def overlap(claims: Claims) -> tuple[str, str]:
    return plainly([{**claims[0], "end": claims[-1]["end"]}, *claims[1:]])


def prose(claims: Claims) -> tuple[str, str]:
    return f"Let me look.\n- first the arm {{moves}}\n```json\n{plainly(claims)[0]}\n```\nI hope this helps.", "stop"


def chatter(claims: Claims) -> tuple[str, str]:
    return "The robot reaches for something, then lifts it, and all is well.", "stop"


def truncated(claims: Claims) -> tuple[str, str]:
    return plainly(claims)[0][:-25], "length"


def integers(claims: Claims) -> tuple[str, str]:
    return plainly([{**claim, "start": int(claim["start"] + 0.5), "end": int(claim["end"] + 0.5)} for claim in claims])


def clocks(claims: Claims) -> tuple[str, str]:
    return plainly([{**claim, "start": f"00:{claim['start']:06.3f}", "end": f"00:{claim['end']:06.3f}"} for claim in claims])


def silence(claims: Claims) -> tuple[str, str]:
    return "", "stop"


FAULTS = {
    "wrong name": wrong_name, "gap": gap, "hole": hole, "overlap": overlap, "prose": prose, "chatter": chatter, "truncated": truncated,
    "integers": integers, "clocks": clocks, "silence": silence,
}  # fmt: skip
