"""Progress and weights on disk: atomic files, labels that lose no work, and what made them written inside.

Its parquet metadata says which model, weights, config, dataset and code made a progress file; its columns are described in
`progress/table.py`. Nothing here overwrites a file of another kind, and no file is ever half-written.
"""

from __future__ import annotations

import json
import secrets
import shutil
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from milepost.core import (
    DataError,
    Progress,
    atomic_folder,
    atomic_path,
    parse_json,
    read_json_object,
    remove_partial,
    require_writable,
    write_text,
)
from milepost.datasets import read_table
from milepost.progress.table import METADATA_PREFIX, ProgressTable, progress_rows, read_progress


def unfinished(path: Path) -> dict[str, str]:
    """Returns the provenance of an unfinished run of the progress file at `path` that has labelled an episode; empty if there is none."""
    folder = _partial(path)
    if not (folder / _MARK).is_file() or not any(folder.glob("*.parquet")):
        return {}
    return unfinished_provenance(folder / _MARK)


def unfinished_provenance(mark: Path) -> dict[str, str]:
    """Returns what an unfinished run says of its making."""
    return {str(key): str(value) for key, value in read_json_object(mark, what="provenance").items()}


def made_alike(there: Mapping[str, str], now: Mapping[str, str]) -> bool:
    """Returns whether episodes labelled by the one provenance are as the other would label them."""
    return comparable(there, now) == comparable(now, now)


def comparable(there: Mapping[str, str], now: Mapping[str, str]) -> dict[str, Any]:
    """Returns a provenance without what changes no episode that is labelled: the code's version, which episodes were asked for, and an
    instruction for episodes without one that is new `now` (without it they were left unknown)."""
    settings, config, config_now = (
        parse_json(text or "{}", source="the file's provenance") for text in (there.get("settings"), there.get("config"), now.get("config"))
    )
    if isinstance(settings, dict):
        settings.pop("episodes", None)
    if isinstance(config, dict) and isinstance(config_now, dict) and config.get("default_task", 0) is None:
        config["default_task"] = config_now.get("default_task")
    return {**{key: value for key, value in there.items() if key != "milepost_version"}, "settings": settings, "config": config}


def _partial(path: Path) -> Path:
    return path.with_name(f"{path.name}.partial")


_MARK = "provenance.json"
_KEEP_S, _KEEP_FRAMES = 2.0, 1_000_000
"""Seconds of work, and frames, that are at most lost by a kill: a part of their own for each short episode cost more than labelling it."""


class ProgressStore:
    """A progress file in the making: what is labelled lands on disk within seconds, `finish` joins it. Interrupted work is found again.

    The unfinished parts live beside the file in `<file>.partial/`, marked with `provenance`; parts made by another model,
    dataset or setting are removed, never mixed in. A folder of that name without our mark is refused. The caller holds the file's
    `output_lock`: a store has one writer.
    """

    def __init__(self, path: Path, provenance: Mapping[str, str], *, anew: bool = False) -> None:
        self.path = Path(path)
        self.provenance = dict(provenance)
        self.folder = _partial(self.path)
        mark = self.folder / _MARK
        if self.folder.is_dir() and any(self.folder.iterdir()) and (anew or self._is_foreign(mark)):
            remove_partial(self.folder, _MARK)
        if not mark.is_file():
            if self.folder.is_dir():
                self.folder.rmdir()
            with atomic_folder(self.folder) as part:  # it is never there without its mark
                (part / _MARK).write_text(json.dumps(self.provenance), encoding="utf-8")
        require_writable(self.folder)
        if unfinished_provenance(mark) != self.provenance:
            write_text(mark, json.dumps(self.provenance))
        self._done = {int(n) for part in self._parts() for n in read_table(part, ["episode_index"])["episode_index"].unique().to_pylist()}
        self._waiting: list[pa.Table] = []
        self._waiting_frames = 0
        self._kept_at = time.monotonic()

    def _is_foreign(self, mark: Path) -> bool:
        return not mark.is_file() or not made_alike(unfinished_provenance(mark), self.provenance)

    def _parts(self) -> list[Path]:
        return sorted(self.folder.glob("*.parquet"))

    def has(self, episode: int) -> bool:
        """Returns whether this episode is already labelled by the same model and settings."""
        return episode in self._done

    @property
    def holds_any(self) -> bool:
        """Whether any episode is labelled."""
        return bool(self._done)

    def adopt(self, there: ProgressTable) -> None:
        """Takes over what a finished file of the same model and settings knows: its episodes without unknown frames, not labelled here yet.

        A file made otherwise is left alone.
        """
        if not made_alike(there.made_by, self.provenance):
            return
        table = read_table(self.path)
        bad = np.logical_or.reduce([np.isnan(curve) for curve in (head.value for head in there.heads.values())])
        keep = ~np.isin(there.episode_index, [*np.unique(there.episode_index[bad]), *self._done])
        if keep.any():
            self._add(table.filter(pa.array(keep)).replace_schema_metadata(None), set(there.episode_index[keep].tolist()))

    def add(self, progress: Progress, row: int) -> None:
        """Adds one episode's progress; it is on disk within `_KEEP_S` seconds of work, and when `keep` is called."""
        self._add(progress_rows(progress, row), {progress.episode})
        if time.monotonic() - self._kept_at > _KEEP_S or self._waiting_frames > _KEEP_FRAMES:
            self.keep()

    def _add(self, rows: pa.Table, episodes: set[int]) -> None:
        self._waiting.append(rows)
        self._waiting_frames += len(rows)
        self._done |= episodes

    def keep(self) -> None:
        """Writes what was added since the last time to disk, as one part."""
        self._kept_at = time.monotonic()
        if not self._waiting:
            return
        table = _joined(self._waiting)
        first = int(table["episode_index"][0].as_py())
        with atomic_path(self.folder / f"episodes-{first:06d}-{secrets.token_hex(4)}.parquet") as temporary:
            pq.write_table(table, temporary)
        self._waiting, self._waiting_frames = [], 0

    def finish(self) -> ProgressTable:
        """Joins the parts, sorted by index, into the progress file, and removes them."""
        parts = [*map(read_table, self._parts()), *self._waiting]
        if not parts:
            shutil.rmtree(self.folder)
            raise DataError("no episode was labelled: there is nothing to write")
        table = _joined(parts).sort_by("index")
        metadata = {f"{METADATA_PREFIX}{key}": value for key, value in self.provenance.items()}
        metadata["reward_model_path"] = self.provenance.get("model_path", "")
        with atomic_path(self.path) as temporary:
            pq.write_table(table.replace_schema_metadata(metadata), temporary)
        shutil.rmtree(self.folder)
        return read_progress(self.path)

    def close(self) -> None:
        """Keeps what was added; a folder in which nothing was ever kept is removed."""
        if self.folder.is_dir():
            self.keep()
            if not self._parts():
                shutil.rmtree(self.folder)


def _joined(parts: Sequence[pa.Table]) -> pa.Table:
    """One table with the columns of all parts in the order of a progress file; a column that a part lacks is null there."""
    table = pa.concat_tables(parts, promote_options="default")
    order = {name: place for place, name in enumerate(("index", "episode_index", "frame_index", "progress_sparse", "progress_dense"))}
    return table.select(sorted(table.column_names, key=lambda name: order.get(name, len(order))))
