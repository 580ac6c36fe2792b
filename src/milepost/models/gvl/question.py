"""The question: frames in a shuffled order, the first of the episode as the scene at 0 %; and the answer's percentages by frame number."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from milepost.vlm import Message

MOST = 200_000
"""The most letters of an answer that are examined, its last ones."""
_ENTRY = re.compile(r"\{[^{}]*\}")
_NUMBER = ("frame", "frame_number")
_PERCENT = ("completion", "percent", "percentage", "completion_percentage", "task_completion_percentage")


def schema(frames: int) -> dict[str, Any]:
    """Returns the answer's form for servers that can enforce one: an entry for each of the frames, by number. It keeps to strict mode."""
    entry = {
        "type": "object",
        "properties": {"frame": {"type": "integer", "enum": list(range(1, frames + 1))}, "completion": {"type": "number"}},
        "required": ["frame", "completion"],
        "additionalProperties": False,
    }
    return {
        "type": "object",
        "properties": {"frames": {"type": "array", "items": entry}},
        "required": ["frames"],
        "additionalProperties": False,
    }


def question(task: str, first: Any, images: Sequence[Any]) -> Message:
    """Returns the message about frames in the order they are shown in. first, images: as the chat model prepared them."""
    content: list[Any] = [
        "You judge how far a robot has come with a task. The task is: " + task + ".\n"
        "Completion is a number from 0 to 100: 0 is the scene at the start, 100 is the task completed. It may fall where the robot undoes "
        "something, and it does not reach 100 where the task is not completed.\n"
        "This is the scene at the start, where completion is 0:\n",
        first,
        f"\nThe next {len(images)} frames are from the same recording. Their order is random, so it says nothing about time. Look at each "
        "frame by itself.\n",
    ]
    for number, image in enumerate(images, start=1):
        content += [f"Frame {number}:\n", image, "\n"]
    content.append(
        f"How far is the task in each of the {len(images)} frames? Answer with JSON alone, one entry for every frame number:\n"
        '{"frames": [{"frame": 1, "completion": 0-100}, {"frame": 2, "completion": 0-100}, ...]}'
    )
    return Message("user", tuple(content))


def percentages(text: str, frames: int) -> Float[np.ndarray, "N"]:
    """Returns the completion of each frame that was shown, 0 to 100, NaN where the answer has none, more than one or an impossible one.

    The numbers of the frames decide, not their order, so a frame that is left out moves no other.

    >>> percentages('{"frames": [{"frame": 2, "completion": 40}, {"frame": 3, "completion": "90 %"}]}', 3).tolist()
    [nan, 40.0, 90.0]
    """
    answers: dict[int, set[float]] = {}
    for match in _ENTRY.finditer(text[-MOST:]):
        try:
            entry = json.loads(match[0])
        except ValueError:
            continue  # a draft or a cut entry: the frame stays unknown
        number, percent = _value(entry, _NUMBER), _value(entry, _PERCENT)
        if 1 <= number <= frames and number == int(number):
            answers.setdefault(int(number), set()).add(percent if 0 <= percent <= 100 else math.nan)
    sure = {number: values.pop() for number, values in answers.items() if len(values) == 1}
    return np.array([sure.get(number, math.nan) for number in range(1, frames + 1)], np.float64)


def _value(entry: dict[str, Any], names: Sequence[str]) -> float:
    """Returns the number that an entry has under one of these names, also if it is written as words; NaN if it has none."""
    raw = next((entry[name] for name in names if name in entry), None)
    if isinstance(raw, bool) or not isinstance(raw, int | float | str):
        return math.nan
    match = re.fullmatch(r"\s*(?:frame)?\s*(\d{1,6}(?:\.\d+)?)\s*%?\s*", str(raw), re.IGNORECASE)
    return float(match[1]) if match else math.nan
