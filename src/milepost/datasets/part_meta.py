"""Writes meta/ of a copy of some frames of some episodes: the table of episodes, totals, statistics, proportions.

Statistics of an episode that keeps all its frames are the source's. Those of a cut one are computed again, those of images from the frames
that LeRobot would sample. Proportions of stages are computed again where the source's are those of its own annotation.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import Shaped

from milepost.core import HEADS, Episode, Segment
from milepost.datasets.annotation_columns import FIELDS, prefixes, row_of
from milepost.datasets.annotations import Rule, stages_by_rule
from milepost.datasets.copy import as_lists, describe_json
from milepost.datasets.entries import UNUSED
from milepost.datasets.metadata import PROPORTIONS, read_proportions
from milepost.datasets.parquet import read_parquet
from milepost.datasets.reader import STATE, LeRobotDataset
from milepost.datasets.statistics import KEYS, QUANTILES, ImageCounter, Stats, column_stats, merge, sampled_frames
from milepost.datasets.subtask_index import read_columns

Range = tuple[int, int]
"""Frames [start, stop) of an episode."""
Unused = Mapping[str, Mapping[int, tuple[int, int]]]
"""Camera -> episode -> how many images of its video before and after its own belong to no row."""
OUTCOMES = "next."
"""Features that say how an attempt went. What the frames after a cut end say is said by the last frame that stays: their highest value."""
COUNTERS = ("timestamp", "frame_index", "episode_index", "index")
Change = Callable[[int, Any], Any]
"""Episode of the source, old cell -> new cell."""


def write_part_meta(part: Path, dataset: LeRobotDataset, ranges: Mapping[int, Range], unused: Unused) -> list[str]:
    """Writes meta/ into the copy in `part`. ranges: episode of the source, ascending -> its frames that stay. Returns warnings."""
    numbers = list(ranges)
    lengths = [stop - start for start, stop in ranges.values()]
    tables = []
    for name in (name for name in dataset.files.listed("meta/episodes") if name.endswith(".parquet")):
        table = read_parquet(dataset.files.path(name))
        table = table.filter(pa.array([number in ranges for number in table["episode_index"].to_pylist()], pa.bool_()))
        if table.num_rows:
            table = _edited(_edited(table, _changes(table, dataset, ranges, unused)), _counters(ranges))
            (part / name).parent.mkdir(parents=True, exist_ok=True)
            pq.write_table(table, part / name, compression="snappy")
            tables.append(table)
    totals = {"total_episodes": len(numbers), "total_frames": sum(lengths), "splits": {"train": f"0:{len(numbers)}"}}
    describe_json(part / "meta/info.json", lambda info: info.update(totals))
    for head in HEADS:
        _write_proportions(part, dataset, ranges, head)
    return _write_statistics(part, tables)


def _edited(table: pa.Table, changes: Mapping[str, Change]) -> pa.Table:
    """Returns the table with new cells in these columns, of the same type; a column that is not there is added as whole numbers."""
    numbers = table["episode_index"].to_pylist()
    for name, change in changes.items():
        place = table.schema.get_field_index(name)
        old = table[name].to_pylist() if place >= 0 else [None] * len(numbers)
        kind = table.schema.field(name).type if place >= 0 else pa.int64()
        column = pa.array([change(number, cell) for number, cell in zip(numbers, old, strict=True)], kind)
        table = table.append_column(name, column) if place < 0 else table.set_column(place, name, column)
    return table


def _counters(ranges: Mapping[int, Range]) -> dict[str, Change]:
    """Returns the columns of the episode's number and rows; they come last, since the others are found by the old number."""
    starts = np.cumsum([0, *(stop - start for start, stop in ranges.values())]).tolist()
    place = {number: new for new, number in enumerate(ranges)}
    return {
        "length": lambda number, _: ranges[number][1] - ranges[number][0],
        "dataset_from_index": lambda number, _: starts[place[number]],
        "dataset_to_index": lambda number, _: starts[place[number] + 1],
        "episode_index": lambda number, _: place[number],
    }


def _changes(table: pa.Table, dataset: LeRobotDataset, ranges: Mapping[int, Range], unused: Unused) -> dict[str, Change]:
    """Returns the columns of places in videos, annotations and statistics."""
    records, fps = dataset.meta.episodes, dataset.fps
    shortened = {number for number, span in ranges.items() if span != (0, records[number].length)}
    changes: dict[str, Change] = {}
    for camera, by_episode in unused.items():
        key = f"videos/{camera}"
        changes[f"{key}/from_timestamp"] = _start_time(ranges, fps, shortened)
        changes[f"{key}/to_timestamp"] = _stop_time(table, f"{key}/from_timestamp", ranges, fps, shortened)
        for side, name in enumerate(UNUSED):
            changes[f"{key}/{name}"] = _cell_of({number: images[side] for number, images in by_episode.items()})
    for head in HEADS:
        rows = {
            number: row_of(shifted_segments(records[number].segments[head], ranges[number]), fps)
            for number in shortened
            if head in records[number].segments and not records[number].from_language
        }
        names = [f"{prefix}{field}" for prefix in prefixes(head) for field in FIELDS]
        for name in (name for name in names if rows and name in table.column_names):
            changes[name] = _cell_of({number: row[name.split("subtask_")[1]] for number, row in rows.items()})
    return changes | _statistics_changes(table, dataset, ranges, shortened)


def _cell_of(new: Mapping[int, Any]) -> Change:
    """Returns the change to these cells; an episode that is not named keeps its own."""
    return lambda number, old: new.get(number, old)


def _start_time(ranges: Mapping[int, Range], fps: float, shortened: set[int]) -> Change:
    """Returns the new `from_timestamp`."""
    return lambda number, old: old + ranges[number][0] / fps if number in shortened else old


def _stop_time(table: pa.Table, start: str, ranges: Mapping[int, Range], fps: float, shortened: set[int]) -> Change:
    """Returns the new `to_timestamp`: that of the last frame that stays, and unchanged where all stay."""
    starts = dict(zip(table["episode_index"].to_pylist(), table[start].to_pylist(), strict=True))
    return lambda number, old: starts[number] + ranges[number][1] / fps if number in shortened else old


def shifted_segments(segments: Sequence[Segment], span: Range) -> tuple[Segment, ...]:
    """Returns an annotation for the frames `span` of its episode alone."""
    start, stop = span
    return tuple(
        Segment(each.name, min(max(each.start, start), stop) - start, min(max(each.stop, start), stop) - start) for each in segments
    )


# Statistics ------------------------------------------------------------------------------------------------------------


def _statistics_changes(table: pa.Table, dataset: LeRobotDataset, ranges: Mapping[int, Range], shortened: set[int]) -> dict[str, Change]:
    """Returns the columns `stats/FEATURE/KEY`: counters are new in all episodes, all else in those that are cut."""
    names = [name for name in table.column_names if name.startswith("stats/")]
    features = {name.split("/", 1)[1].rsplit("/", 1)[0] for name in names}
    new: dict[int, dict[str, Stats]] = {}
    tasks = dict(_tasks(dataset, shortened)) if shortened else {}
    row = 0
    mine = set(table["episode_index"].to_pylist())
    for place, (number, (start, stop)) in enumerate(ranges.items()):
        if number in mine:
            new[number] = _of_counters(place, row, stop - start, dataset.fps, with_stamps=number in shortened)
            if number in shortened:
                new[number] |= _of_episode(dataset.episode(number), dataset, (start, stop), features)
                new[number]["task_index"] = column_stats(tasks[number][start:stop])
        row += stop - start

    def change(feature: str, key: str) -> Change:
        def cell(number: int, old: Any) -> Any:
            stats = new[number].get(feature)
            return old if stats is None or old is None else stats[key].reshape(np.shape(old)).tolist()

        return cell

    parsed = {name: name.split("/", 1)[1].rsplit("/", 1) for name in names}
    return {name: change(feature, key) for name, (feature, key) in parsed.items() if key in KEYS}


def _of_counters(place: int, row: int, length: int, fps: float, *, with_stamps: bool) -> dict[str, Stats]:
    frame = np.arange(length)
    columns = {"frame_index": frame, "episode_index": np.full(length, place), "index": row + frame}
    if with_stamps:
        columns["timestamp"] = (frame / fps).astype(np.float32)
    return {name: column_stats(column) for name, column in columns.items()}


def _of_episode(episode: Episode, dataset: LeRobotDataset, span: Range, features: set[str]) -> dict[str, Stats]:
    """Returns the statistics of an episode's frames that stay, without the counters."""
    start, stop = span
    columns: dict[str, Shaped[np.ndarray, "T *D"]] = {**episode.columns, STATE: episode.state}
    stats = {
        name: column_stats(_ended(column, span) if name.startswith(OUTCOMES) and column.size == len(column) else column[start:stop])
        for name, column in columns.items()
        if name in features and name not in COUNTERS and column.size and column.dtype.kind in "biuf"
    }
    for camera in (camera for camera in dataset.cameras if camera in features):
        counter = ImageCounter(stop - start)
        frames = sampled_frames(stop - start)
        for some in np.array_split(frames, max(1, len(frames) // 32)):
            for frame, image in zip(some.tolist(), episode.camera(camera)[start + some], strict=True):
                counter.add(frame, image)
        stats[camera] = counter.stats()
    return stats


def _tasks(dataset: LeRobotDataset, shortened: set[int]) -> Iterator[tuple[int, Shaped[np.ndarray, "T"]]]:
    """Yields the task of each frame of these episodes."""
    for record, values in read_columns(dataset.files, dataset.meta, ["task_index"]):
        if record.index in shortened:
            yield record.index, values["task_index"]


def _ended(column: Shaped[np.ndarray, "T *D"], span: Range) -> Shaped[np.ndarray, "N *D"]:
    """Returns the values of the frames that stay, the last of which says what the frames after it said."""
    part = column[span[0] : span[1]].copy()
    part[-1] = column[span[1] - 1 :].max(axis=0)
    return part


def _write_statistics(part: Path, tables: Sequence[pa.Table]) -> list[str]:
    """Writes meta/stats.json from the episodes' own statistics. Returns a warning where they have none."""
    path = part / "meta/stats.json"
    if not path.is_file():
        return []
    whole: dict[str, Any] = {}
    names = tables[0].column_names
    features = dict.fromkeys(name.split("/", 1)[1].rsplit("/", 1)[0] for name in names if name.startswith("stats/"))
    for feature in features:
        keys = [key for key in KEYS if f"stats/{feature}/{key}" in names]
        if not {"min", "max", "mean", "std", "count"} <= set(keys):
            continue
        columns = {key: [cell for table in tables for cell in table[f"stats/{feature}/{key}"].to_pylist()] for key in keys}
        missing = [key for key in QUANTILES if key not in keys]
        episodes = [
            {key: np.array(columns[key][at]) for key in keys} | dict.fromkeys(missing, np.zeros_like(columns["mean"][at]))
            for at in range(len(columns["count"]))
            if columns["count"][at] is not None
        ]
        if episodes:
            whole[feature] = {key: values for key, values in as_lists(merge(episodes)).items() if key in keys}
    describe_json(path, lambda stats: stats.update(whole))
    if missing := [name for name in json.loads(path.read_text(encoding="utf-8")) if name not in whole]:
        return [f"the statistics of {', '.join(missing[:9])} are the whole source's: meta/episodes has none of each episode"]
    return []


def _write_proportions(part: Path, dataset: LeRobotDataset, ranges: Mapping[int, Range], head: str) -> None:
    """Writes the proportions of the annotation that stays, by the rule that gives the source's; others were somebody's choice, and stay."""
    old, records = read_proportions(dataset.root, head), dataset.meta.episodes
    if not old or dataset.meta.from_language:
        return
    whole = {number: record.sound_segments.get(head, ()) for number, record in records.items()}
    remaining = {number: shifted_segments(whole[number], span) for number, span in ranges.items()}
    rules: tuple[Rule, ...] = ("finished", "lerobot")
    for rule in rules if set(old) >= {each.name for segments in whole.values() for each in segments} else ():
        source = stages_by_rule(whole, dataset.meta, tuple(old), rule)
        if source is None or not np.allclose(source.shares, list(old.values()), atol=1e-6):
            continue
        if (stages := stages_by_rule(remaining, dataset.meta, tuple(old), rule)) is not None:
            by_stage = dict(zip(stages.names, stages.shares, strict=True))
            (part / PROPORTIONS.format(head=head)).write_text(json.dumps(by_stage, indent=2, allow_nan=False), encoding="utf-8")
        return
