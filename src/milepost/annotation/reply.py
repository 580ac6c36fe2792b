"""A model's answer in words -> labels in seconds. Reads JSON in prose or code fences; refuses what is cut off or no JSON.

Times: seconds (12.5, "12.5 s"), clocks ("01:05", "01:05.5", "01:02:03"), "1 min 5 s", frame numbers ("frame 31", `start_frame`: as shown,
from 1). The last complete answer in the text counts: models draft before they decide. Of a text that was cut off nothing counts but an
answer that is all of it: the rest may be thoughts. Whether the labels make sense is decided in `checks.py`.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float
from pydantic import AliasChoices, AliasPath, BaseModel, Field, StrictFloat, StrictInt, StrictStr, ValidationError, model_validator

from milepost.annotation.faults import Fault, quoted
from milepost.annotation.subtasks import SubtaskList


@dataclass(frozen=True)
class TimedLabel:
    """One entry of an answer: this stage lasts from start_s to stop_s. It is checked only that both are finite."""

    name: str
    start_s: float
    stop_s: float


@dataclass(frozen=True)
class ParsedReply:
    """labels in the order of the answer, and why it could not be read. whole_seconds: no time in it had decimals."""

    labels: tuple[TimedLabel, ...] = ()
    faults: tuple[Fault, ...] = ()
    whole_seconds: bool = False


def json_schema(subtasks: SubtaskList) -> dict[str, Any]:
    """Returns the answer's form for servers that can enforce one: the closed list of names, times as numbers. It keeps to strict mode's
    subset.
    """
    item = {
        "type": "object",
        "properties": {"name": {"type": "string", "enum": list(subtasks.names)}, "start": {"type": "number"}, "end": {"type": "number"}},
        "required": ["name", "start", "end"],
        "additionalProperties": False,
    }
    return {
        "type": "object",
        "properties": {"subtasks": {"type": "array", "items": item}},
        "required": ["subtasks"],
        "additionalProperties": False,
    }


_THOUGHT = r"think|thinking|thought|reasoning|reflection|seed:think"
_OPENS = re.compile(rf"<(?:{_THOUGHT})>|\[THINK\]|◁think▷")
_CLOSES = re.compile(rf"</(?:{_THOUGHT})>|\[/THINK\]|◁/think▷")
"""How models mark their thoughts. The opening mark is often in the prompt and not in the text."""
MOST = 200_000
"""The most letters of a text that are examined, its last ones: an answer has a hundredth of that."""
MORE = "it had no room left: give an answer more tokens with --max-tokens"


def parse_reply(text: str, *, times_s: Float[np.ndarray, "N"] | None = None, cut: bool = False) -> ParsedReply:
    """Returns the labels and faults of an answer. times_s: of the frames shown, in order, for answers in frame numbers. cut: the answer was
    cut off.
    """
    text = text[-MOST:]
    answer = _without_thoughts(text)
    items, unclosed = _answer(answer)
    if cut and (items is None or not _is_all_json(answer)):
        reason = "the answer was cut off before it was done; leave out all other text"
        return ParsedReply(faults=(Fault("cut off", reason, advice=MORE),))
    if items is None:
        if unclosed:
            return ParsedReply(faults=(Fault("cut off", "the answer was cut off before its JSON ended; leave out all other text"),))
        return ParsedReply(faults=(Fault("no JSON", f"there is no JSON list of stages in the answer, which begins {quoted(text)}"),))
    return _timed_labels(items, times_s)


def _without_thoughts(text: str) -> str:
    """Returns the text without the model's thoughts: what follows their last end, up to where new ones begin."""
    ends = [mark.end() for mark in _CLOSES.finditer(text)]
    return _OPENS.split(text[ends[-1] if ends else 0 :], maxsplit=1)[0]


def _is_all_json(text: str) -> bool:
    """Returns whether the text is one JSON value and nothing else, in a code fence or bare."""
    bare = text.strip().removeprefix("```json").removeprefix("```").removesuffix("```").strip()
    return bare[:1] in ("[", "{") and bare[-1:] in ("]", "}")


def _timed_labels(items: Sequence[Any], times_s: Float[np.ndarray, "N"] | None) -> ParsedReply:
    labels, faults, whole = [], [], []
    for number, item in enumerate(items, start=1):
        try:
            entry = _Item.model_validate(item)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(part) for part in first["loc"]) or "entry"
            faults.append(Fault("wrong shape", f"entry {number} of the list should have name, start and end; {where}: {first['msg']}"))
            continue
        if entry.never:
            continue
        sides = {"start": entry.start, "end": entry.stop}
        read_times = {side: seconds(value, times_s) for side, value in sides.items()}
        for side, time in read_times.items():
            if time is None:
                reason = f"the {side} of {quoted(entry.name)} is {quoted(sides[side])}, {_expected(times_s)}"
                faults.append(Fault("unreadable time", reason))
        start, stop = read_times["start"], read_times["end"]
        if start is not None and stop is not None:
            labels.append(TimedLabel(entry.name, start, stop))
            whole += [_is_whole(value) for value in sides.values()]
    return ParsedReply(tuple(labels), tuple(faults), bool(whole) and all(whole))


def _expected(times_s: Float[np.ndarray, "N"] | None) -> str:
    frames = "" if times_s is None else f", or one of the frames 1 to {len(times_s)}"
    return f"which is no time; expected seconds as in 12.5, a clock as in 01:05.5{frames}"


def _is_whole(value: object) -> bool:
    return isinstance(value, int) or (isinstance(value, str) and not re.search(r"[.,#]|frame", value, re.IGNORECASE))


_NUMBER = r"(\d{1,7}(?:[.,]\d{1,12})?)"
_SECONDS = re.compile(rf"(-?){_NUMBER}\s*(?:s|secs?|seconds?)?", re.IGNORECASE)
_CLOCK = re.compile(r"(?:(\d{1,3}):)?(\d{1,4}):([0-5]?\d(?:[.,]\d{1,12})?)")
_MINUTES = re.compile(rf"(\d{{1,4}})\s*(?:m|mins?|minutes?)\s*(?:{_NUMBER}\s*(?:s|secs?|seconds?))?", re.IGNORECASE)
_FRAME = re.compile(rf"(?:frame|#)\s*#?(\d{{1,7}})(?:\W+{_NUMBER}\s*(?:s|secs?|seconds?)\W*)?", re.IGNORECASE)


def seconds(value: float | int | str | None, times_s: Float[np.ndarray, "N"] | None = None) -> float | None:
    """Returns a time in any accepted notation as seconds, None if it is none.

    >>> seconds("01:05.5"), seconds("1:02:03"), seconds("12.5 s"), seconds("frame 2", np.array([0.0, 0.5]))
    (65.5, 3723.0, 12.5, 0.5)
    """
    if value is None or isinstance(value, bool):
        return None
    if not isinstance(value, str):
        return float(value) if abs(value) < 1e7 and math.isfinite(value) else None
    text = value.strip().strip("<>[]()'\"").strip()
    if number := _SECONDS.fullmatch(text):
        return _decimal(number[1] + number[2])
    if clock := _CLOCK.fullmatch(text):
        hours, minutes, rest = clock.groups()
        if hours is None or int(minutes) < 60:
            return 3600.0 * int(hours or 0) + 60 * int(minutes) + _decimal(rest)
    if clock := _MINUTES.fullmatch(text):
        return 60.0 * int(clock[1]) + _decimal(clock[2] or "0")
    if frame := _FRAME.fullmatch(text):
        if frame[2]:
            return _decimal(frame[2])
        if times_s is not None and 1 <= int(frame[1]) <= len(times_s):
            return float(times_s[int(frame[1]) - 1])
    return None


def _decimal(text: str) -> float:
    return float(text.replace(",", "."))


Time = StrictInt | StrictFloat | StrictStr | None


def _frame(value: object) -> object:
    return f"frame {value}" if isinstance(value, int) and not isinstance(value, bool) else value


def _time(*names: str, nested: str | int) -> Any:
    paths = [AliasPath(around, nested) for around in ("timestamps", "timestamp", "time", "times")]
    return Field(None, validation_alias=AliasChoices(*names, *paths))


class _Item(BaseModel):
    """One entry, flat or nested as LeRobot's. Strict types: true is no time. Null for both times: it did not happen."""

    name: StrictStr = Field(min_length=1, validation_alias=AliasChoices("name", "subtask", "stage", "label"))
    start: Time = _time("start", "start_s", "start_time", "start_sec", "start_seconds", "start_frame", nested="start")
    stop: Time = _time("end", "stop", "end_s", "end_time", "end_sec", "end_seconds", "end_frame", "stop_frame", nested="end")

    @model_validator(mode="before")
    @classmethod
    def _frames(cls, item: Any) -> Any:
        if not isinstance(item, dict):
            return item
        return {key: _frame(value) if str(key).endswith("_frame") else value for key, value in item.items()}

    @property
    def never(self) -> bool:
        return self.start is None and self.stop is None and {"start", "stop"} <= self.model_fields_set


def _answer(text: str) -> tuple[list[Any] | None, bool]:
    """Returns (the entries of the last complete answer, or None; whether the text ends inside a bracket that is not closed)."""
    values, open_at = _values(text)
    lists = [(stop, items) for value, stop in values if (items := _entries(value)) is not None]
    if lists:
        stop, items = lists[-1]
        return (None, True) if open_at is not None and open_at >= stop else (items, False)
    if open_at is not None:
        return None, True
    single = [value for value, _ in values if _is_entry(value)]
    return single or None, False


def _is_entry(value: Any) -> bool:
    return isinstance(value, dict) and bool({"name", "subtask", "stage", "label"} & set(value))


def _entries(value: Any) -> list[Any] | None:
    """Returns the list of stages in a JSON value: itself, or under `subtasks` or another key, at most two objects deep. None if it has
    none.
    """
    if isinstance(value, list):
        return value if any(_is_entry(each) for each in value) else None
    if not isinstance(value, dict):
        return None
    if isinstance(entries := value.get("subtasks"), list):
        return entries
    if _is_entry(value):
        return None
    nested = [each for each in value.values() if isinstance(each, list | dict)]
    nested += [deep for each in nested if isinstance(each, dict) for deep in each.values() if isinstance(deep, list)]
    lists = [each for each in nested if isinstance(each, list) and any(_is_entry(one) for one in each)]
    return lists[0] if lists else None


def _values(text: str) -> tuple[list[tuple[Any, int]], int | None]:
    """Returns every outermost JSON object or list with where it stops, and where the first bracket after them stands that is never
    closed.
    """
    closings = _closings(text)
    values: list[tuple[Any, int]] = []
    at, open_at = 0, None
    for bracket in re.finditer(r"[\[{]", text):
        start = bracket.start()
        if start < at:
            continue
        try:
            value, stop = _decoded(text, start)
            if value is None and (closing := closings.get(start)) is not None:
                value, stop = _decoded(_mended(text[start:closing]), 0)[0], closing
        except RecursionError:  # a thousand brackets deep: not an answer, and every one of them would be tried
            return values, start if start not in closings else None
        if value is not None:
            at = stop
            values.append((value, stop))
        elif start not in closings and (open_at is None or open_at < at):
            open_at = start
    return values, open_at


def _decoded(text: str, start: int) -> tuple[Any, int]:
    try:
        return json.JSONDecoder().raw_decode(text, start)
    except ValueError:
        return None, start


def _mended(text: str) -> str:
    """Returns the text without two slips that models make: a comma after the last entry, and a clock without quotes."""
    text = re.sub(r":\s*(\d{1,3}:\d{2}(?::\d{2})?(?:\.\d+)?)(?=\s*[,}])", r': "\1"', text)
    return re.sub(r",(\s*[\]}])", r"\1", text)


def _closings(text: str) -> dict[int, int]:
    """Returns where each bracket's value ends, for the brackets that are closed. Brackets inside strings do not count."""
    closings: dict[int, int] = {}
    open_brackets: list[int] = []
    in_string: list[tuple[int, str]] | None = None  # brackets since the last quote, in case no other follows on that line
    for token in re.finditer(r'\\.|["\n\[\]{}]', text):
        mark, place = token[0][-1], token.end() - 1
        if mark == '"' and (in_string is None or len(token[0]) == 1):
            in_string = [] if in_string is None else None
        elif mark == "\n":
            _close(in_string or (), open_brackets, closings)
            in_string = None
        elif mark in "[]{}" and in_string is not None:
            in_string.append((place, mark))
        elif mark in "[]{}":
            _close([(place, mark)], open_brackets, closings)
    _close(in_string or (), open_brackets, closings)
    return closings


def _close(brackets: Sequence[tuple[int, str]], open_brackets: list[int], closings: dict[int, int]) -> None:
    for place, mark in brackets:
        if mark in "[{":
            open_brackets.append(place)
        elif open_brackets:
            closings[open_brackets.pop()] = place + 1
