"""The words of the question. Everything that does not depend on the list of stages comes before it, so sparse and dense share that prefix.

So a server or local model reads images and shared words once for several heads. Nothing here says that the attempt succeeded: stages may be
optional, and a failed attempt may stop before the last ones.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from milepost.annotation.sampling import FrameSample
from milepost.annotation.subtasks import SubtaskList
from milepost.core import DataError, has_words

Look = Literal["sheets", "frames", "video"]
"""How the frames are handed over: contact sheets, stamped images one by one, or a video whose reader stamps it (a local Qwen3-VL).

Sheets are the default. On WGO-Bench contact sheets with printed times were the cheapest way to the best published segmentation, and
LeRobot's maintainers report that legible times, with other changes, about doubled what open models reach. Not measured here.
"""


@dataclass(frozen=True)
class Question:
    """before, [images], shared, own: the text before the images, the text after them for every head, and the text that depends on the list
    of stages.
    """

    before: str
    shared: str
    own: str

    @property
    def after(self) -> str:
        """Returns all that follows the images."""
        return self.shared + self.own


def question(
    task: str, subtasks: SubtaskList, sample: FrameSample, *, look: Look = "sheets", cameras: int = 1, success: bool | None = None
) -> Question:
    """Returns the question about one episode and head. success: False says that the attempt failed. DataError for a task without words.

    >>> from milepost.annotation.sampling import sample_frames
    >>> question("lift the cube", SubtaskList.from_flag("reach, grasp"), sample_frames(90, 30.0)).own.splitlines()[1]
    '1. "reach"'
    """
    if not has_words(task):
        raise DataError("the episode has no task in words; annotation asks about a task, as in 'pick up the cube'")
    end = f"{sample.duration_s:.2f}"
    before = f"One recorded attempt of a robot at this task: {' '.join(task.split())}\n{_pictures(sample, look, cameras)}\n"
    shared = (
        f"The recording lasts {end} seconds. It is to be divided into stages.\n"
        "A stage begins at the moment the motion that serves it begins. It ends at the moment its result can be seen: a thing is held, "
        "let go, has arrived, is opened or closed, has changed its shape. There the next stage begins.\n"
        "Find each border by comparing neighbouring frames, and read its time off them. If the change falls between two frames, give a "
        "time between theirs. Stages differ in length; do not share the time out evenly.\n"
        f"Give times in seconds with decimals, from 0.00 to {end}.\n"
    )
    return Question(before, shared, _list(subtasks) + _rules(subtasks, end, success) + _form())


def _pictures(sample: FrameSample, look: Look, cameras: int) -> str:
    count = f"{len(sample)} frame{'s' if len(sample) > 1 else ''} in order of time"
    several = f" Each frame shows {cameras} cameras side by side, at the same moment." if cameras > 1 else ""
    band = "The black band above each frame has its number and, on the right, its time in seconds."
    return {
        "sheets": f"Contact sheets with {count}, to be read row by row, from left to right. {band}",
        "frames": f"{count[0].upper()}{count[1:]}. {band}",
        "video": f"A video of {count}, each with its time in seconds before it.",
    }[look] + several


def _list(subtasks: SubtaskList) -> str:
    lines = ["The stages, in the order in which they happen:"]
    for number, subtask in enumerate(subtasks, start=1):
        marks = [word for word, true in (("may be missing", subtask.optional), ("may happen more than once", subtask.repeatable)) if true]
        text = f": {' '.join(subtask.description.split())}" if subtask.description else ""
        note = f" ({', '.join(marks)})" if marks else ""
        lines.append(f'{number}. "{subtask.name}"{text}{note}')
    return "\n".join(lines) + "\n"


def _rules(subtasks: SubtaskList, end: str, success: bool | None) -> str:
    loose = any(subtask.optional or subtask.repeatable for subtask in subtasks)
    rules = ["Every stage happens exactly once, in this order" + (", unless the list says otherwise." if loose else ".")]
    if success is False:
        rules.append("This attempt failed: it may stop before the last stages; leave out those that did not happen.")
    if subtasks.covers:
        rules.append(
            f"Leave no gaps: the first stage starts at 0.00, each next one where the one before it ends, and the last ends at {end}."
        )
    else:
        rules.append("There may be time before, between and after the stages in which none of them happens; leave it out.")
    return " ".join(rules) + "\n"


def _form() -> str:
    return (
        "Answer with JSON alone, the names exactly as they are written above, in order of time:\n"
        '{"subtasks": [{"name": "<name>", "start": <seconds>, "end": <seconds>}, ...]}'
    )
