"""Checks what the numbers of the robot say together: values that stand still, jump or come twice, other tasks, statistics of other data.

Nothing here opens a data file, and bad content never raises. What it says are warnings, but for statistics that are no numbers.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int, Shaped

from milepost.core import DataError, count_noun, read_json_object, shortlist, shown
from milepost.datasets.choice import leave_out_verb
from milepost.datasets.episode_arrays import EpisodeArrays
from milepost.datasets.findings import Finding
from milepost.datasets.metadata import STATS
from milepost.datasets.records import Metadata

STATE, ACTION = "observation.state", "action"
REST_S, REST_ROWS = 1.0, 10
"""The shortest stretch, in seconds and in rows, in which a state that stays the same is worth a word, if the action moves meanwhile."""
MOVES = 0.05
"""Part of its range in a file by which an action moves, at least, while the state stands still."""
SPIKE, USUAL, TIMES = 0.25, 98, 5
"""A spike leaves and comes back by this part of the channel's range in the whole dataset, and by so many times its usual step: this
percentile of the steps of an episode, of which the median episode counts. So it is the same however the episodes are spread over files."""
LOOK = "Look there with milepost view; if the robot did not move so, leave the episode out with {verb} --without"
"""What to do about a spike."""
OFF = 0.05
"""Part of a channel's range by which its smallest or largest value may differ from the statistics."""
JUMP = np.dtype([("episode", np.int64), ("frame", np.int32), ("channel", np.int32), ("size", np.float64)])
"""A channel of the state that leaves its way for one frame, and by how much at least. Noise does so in each row, so these are columns."""


@dataclass
class Behaviour:
    """What there is to say of the robot's numbers. Files are taken one after another, as they are read."""

    root: Path
    meta: Metadata
    arrays: EpisodeArrays
    _places: dict[str, list[int]] = field(default_factory=dict)
    _digests: dict[bytes, int] = field(default_factory=dict)
    _extremes: dict[str, tuple[np.ndarray, np.ndarray]] = field(default_factory=dict)
    _usual: list[np.ndarray] = field(default_factory=list)
    _jumps: list[Shaped[np.ndarray, "J"]] = field(default_factory=list)
    _steps: int = 0
    _rows: int = 0

    def take(self, columns: Mapping[str, Shaped[np.ndarray, "..."]]) -> None:
        """Looks at the rows of one data file, by column name. Columns that are missing or are no numbers are passed by."""
        tables = {name: values for name in (STATE, ACTION) if (values := _numbers(columns.get(name))) is not None}
        owner = columns.get("episode_index")
        self._rows += len(next(iter(columns.values()), ()))
        for name, values in tables.items():
            low, high = self._extremes.get(name, (values[0], values[0]))
            if len(low) == values.shape[1]:
                self._extremes[name] = np.minimum(low, values.min(0)), np.maximum(high, values.max(0))
        if owner is None or owner.size != len(owner) or not np.isfinite(owner).all():
            return
        owner = owner.reshape(-1).astype(np.int64)
        if "task_index" in columns:
            self._compare_tasks(owner, columns["task_index"].reshape(-1))
        if STATE in tables and len(tables[STATE]) == len(owner):
            self._compare_states(owner, tables[STATE], tables.get(ACTION))

    def results(self) -> Iterator[Finding]:
        """Yields what there is to say, once for each kind."""
        yield from self._check_spikes()
        yield from self._check_stuck()
        yield from self._check_statistics()
        for what, episodes in self._places.items():
            code, words = what.split(": ", 1)
            numbers = sorted(set(episodes))
            more = f" (so in {count_noun(len(numbers), 'episode')})" if len(numbers) > 1 else ""
            yield Finding(code, "warning", words + more, numbers[0])

    def _say(self, what: str, episode: int) -> None:
        self._places.setdefault(what, []).append(episode)

    def _compare_tasks(self, owner: Int[np.ndarray, "N"], tasks: Shaped[np.ndarray, "N"]) -> None:
        is_known = np.isin(owner, self.arrays.number) & np.isin(tasks, list(self.meta.tasks))
        owner, tasks = owner[is_known], tasks[is_known].astype(np.int64)
        code = self.arrays.task[np.searchsorted(self.arrays.number, owner)]
        for words, task in _pairs(code, tasks):
            if self.arrays.tasks[words] and self.meta.tasks[task] not in self.arrays.tasks[words]:
                for episode in np.unique(owner[(code == words) & (tasks == task)]).tolist():
                    self._say("task-differs: meta/episodes names another task than the rows, which count", episode)

    def _compare_states(
        self, owner: Int[np.ndarray, "N"], state: Float[np.ndarray, "N S"], action: Float[np.ndarray, "N A"] | None
    ) -> None:
        same = owner[1:] == owner[:-1]
        steps = np.diff(state, axis=0)
        if action is not None and len(action) == len(state):
            for start, stop in _rests((steps == 0).all(axis=1) & same, max(REST_ROWS, int(REST_S * (self.meta.fps or 1)))):
                moved = np.ptp(action[start : stop + 1], axis=0) > MOVES * np.ptp(action, axis=0)
                if moved.any():
                    words = "the state is constant for a second or longer while the action moves: a sensor or a connection that stopped"
                    self._say(f"state-rests: {words}", int(owner[start]))
        edges = np.flatnonzero(np.concatenate([[True], ~same, [True]]))
        starts, lengths = edges[:-1], np.diff(edges)
        self._note_jumps(owner, starts, steps, same)
        self._note_usual_steps(starts, lengths, steps)
        for start, length in zip(starts[lengths >= REST_ROWS].tolist(), lengths[lengths >= REST_ROWS].tolist(), strict=True):
            rows = slice(start, start + length)
            if (state[rows] != state[start]).any():
                self._compare_episode(int(owner[start]), state[rows], None if action is None else action[rows])

    def _compare_episode(self, episode: int, state: Float[np.ndarray, "T S"], action: Float[np.ndarray, "T A"] | None) -> None:
        digest = hashlib.blake2b(np.ascontiguousarray(state).tobytes(), digest_size=16)
        digest.update(b"" if action is None else np.ascontiguousarray(action).tobytes())
        first = self._digests.setdefault(digest.digest(), episode)
        if first != episode:
            self._say(f"duplicate: the states and actions of episode {first} again", episode)

    def _note_usual_steps(self, starts: Int[np.ndarray, "E"], lengths: Int[np.ndarray, "E"], steps: Float[np.ndarray, "M S"]) -> None:
        """Notes the usual step of each channel in each episode, for all episodes of one length at once: most datasets have few lengths."""
        if steps.shape[1] != len(self._extremes[STATE][0]):
            return
        for length in np.unique(lengths[lengths > 1]):
            rows = starts[lengths == length, None] + np.arange(length - 1)
            self._steps += rows.size
            self._usual.append(np.percentile(np.abs(steps[rows]), USUAL, axis=1))

    def _note_jumps(
        self, owner: Int[np.ndarray, "N"], starts: Int[np.ndarray, "E"], steps: Float[np.ndarray, "M S"], same: Bool[np.ndarray, "M"]
    ) -> None:
        """Notes what may turn out to be a spike once the whole range is known. `same` says which steps stay in one episode."""
        low, high = self._extremes[STATE]
        if steps.shape[1] != len(low):
            return
        there, back = steps[:-1], steps[1:]
        size = np.where(there * back < 0, np.minimum(np.abs(there), np.abs(back)), 0)
        size[~(same[:-1] & same[1:])] = 0
        row, channel = np.nonzero(size > SPIKE * (high - low))
        jumps = np.empty(len(row), JUMP)
        jumps["episode"], jumps["channel"], jumps["size"] = owner[row], channel, size[row, channel]
        jumps["frame"] = row + 1 - starts[np.searchsorted(starts, row, side="right") - 1]
        self._jumps.append(jumps)

    def _check_spikes(self) -> Iterator[Finding]:
        """Yields one warning for all spikes, with the place of the first and how it compares with a usual step."""
        if self._steps < 3 * REST_ROWS:
            return
        low, high = self._extremes[STATE]
        usual = np.median(np.concatenate(self._usual), axis=0)
        limit = np.maximum(SPIKE * (high - low), TIMES * usual)
        spikes = np.concatenate([jumps[jumps["size"] > limit[jumps["channel"]]] for jumps in self._jumps])
        if not len(spikes):
            return
        first, frame, channel, size = np.sort(spikes, order=["episode", "frame", "channel"])[0].tolist()
        names = _channels(self.meta.features.get(STATE))
        name = f"'{names[channel]}'" if len(names) == len(low) else str(channel)
        words = f"the state jumps away for one row and comes back: frame {frame}, channel {name}, by {size:.3g}, "
        words += f"whose steps are usually at most {usual[channel]:.2g}"
        if others := np.unique(spikes["episode"])[1:].tolist():
            words += f" (so in {count_noun(len(others) + 1, 'episode')}, also {shortlist(others)})"
        yield Finding("spike", "warning", f"{words}. {LOOK.format(verb=leave_out_verb(self.meta.version))}", first)

    def _check_stuck(self) -> Iterator[Finding]:
        """Yields the channels whose state has one value throughout while the action of that name moves."""
        names = {column: _channels(self.meta.features.get(column)) for column in (STATE, ACTION)}
        if STATE not in self._extremes or ACTION not in self._extremes:
            return
        moves = {column: high > low for column, (low, high) in self._extremes.items()}
        if any(len(names[column]) != len(moves[column]) for column in names):
            return
        acts = {name for name, is_moving in zip(names[ACTION], moves[ACTION], strict=True) if is_moving}
        if stuck := [name for name, is_moving in zip(names[STATE], moves[STATE], strict=True) if not is_moving and name in acts]:
            words = f"the state of {', '.join(map(str, stuck))} has one value throughout, and its action moves: a sensor that is stuck"
            yield Finding("stuck", "warning", words)

    def _check_statistics(self) -> Iterator[Finding]:
        try:
            stats = read_json_object(self.root / STATS, what="statistics")
        except DataError:
            return  # what is missing or damaged is said elsewhere
        is_whole = self._rows == int(self.arrays.length.sum())
        for name, (low, high) in self._extremes.items():
            own = stats.get(name)
            if not isinstance(own, dict):
                yield Finding("stats", "warning", f"{STATS} has nothing of '{name}': LeRobot's policies do not normalise it")
                continue
            if bad := [key for key in ("mean", "std", "min", "max") if key in own and not _are_finite(own[key])]:
                yield Finding(
                    "stats", "error", f"{STATS}: {' and '.join(bad)} of '{name}' should be finite numbers, found {shown(own[bad[0]])}"
                )
            elif is_whole and _are_finite(own.get("min")) and _are_finite(own.get("max")):
                yield from _compare_range(name, (low, high), (own["min"], own["max"]))


def _compare_range(name: str, data: tuple[np.ndarray, np.ndarray], listed: tuple[Any, Any]) -> Iterator[Finding]:
    smallest, largest = (np.asarray(values, float).reshape(-1) for values in listed)
    if not len(smallest) == len(largest) == len(data[0]):
        yield Finding("stats", "warning", f"{STATS} has {len(smallest)} numbers for '{name}', the rows have {len(data[0])}")
        return
    room = OFF * np.maximum(data[1] - data[0], largest - smallest) + 1e-6 * np.maximum(np.abs(data[0]), np.abs(data[1])) + 1e-9
    wrong = np.flatnonzero((np.abs(data[0] - smallest) > room) | (np.abs(data[1] - largest) > room))
    if len(wrong):
        at = wrong[0]
        words = f"{STATS}: '{name}' [{at}] goes from {smallest[at]:.4g} to {largest[at]:.4g}, in the rows from {data[0][at]:.4g} to"
        words += f" {data[1][at]:.4g}; so for {count_noun(len(wrong), 'number')} of a row: policies normalise with other data's statistics"
        yield Finding("stats", "warning", words)


def _numbers(values: Shaped[np.ndarray, "..."] | None) -> Float[np.ndarray, "N D"] | None:
    """Returns a column as a table of floats, or None if there is none, or NaN in it, which is said elsewhere."""
    if values is None or values.dtype.kind not in "biuf" or not len(values) or not values.size:
        return None
    table = values.reshape(len(values), -1)
    table = table if table.dtype.kind == "f" else table.astype(np.float64)
    return table if np.isfinite(table).all() else None


def _channels(feature: Any) -> list[Any]:
    """Returns the names of a feature's channels; none where they are not a list, or a dict of one list, of words that differ."""
    names = feature.get("names") if isinstance(feature, dict) else None
    if isinstance(names, dict) and len(names) == 1:
        names = next(iter(names.values()))
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names) or len(set(names)) < len(names):
        return []
    return names


def _are_finite(values: Any) -> bool:
    if not isinstance(values, list):
        return False
    try:
        return bool(np.isfinite(np.asarray(values, float)).all())
    except (TypeError, ValueError):
        return False


def _pairs(first: Int[np.ndarray, "N"], second: Int[np.ndarray, "N"]) -> list[tuple[int, int]]:
    """Returns the different pairs of two columns."""
    return [(int(a), int(b)) for a, b in np.unique(np.stack([first, second], axis=1), axis=0)]


def _rests(still: Shaped[np.ndarray, "M"], least: int) -> list[tuple[int, int]]:
    """Returns the runs of at least `least` steps in which nothing changes, as their first and last row."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], still, [False]]).astype(np.int8)))
    return [(start, stop) for start, stop in edges.reshape(-1, 2).tolist() if stop - start >= least]
