"""Writes progress files: atomically, without losing finished work, and with the provenance inside.

The parquet metadata names the model, weights, config, dataset and code that made a file; `progress/table.py` describes its columns. A file
of another kind is never overwritten, and no file is ever half-written.
"""

from __future__ import annotations

import json
import secrets
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from milepost.core import (
    FORM_METADATA,
    DataError,
    Progress,
    atomic_folder,
    atomic_path,
    parse_json,
    read_json_object,
    remove_folder,
    remove_partial,
    require_file_name,
    require_writable,
    write_text,
)
from milepost.datasets import read_table
from milepost.progress.joining import joined, write_joined
from milepost.progress.table import METADATA_PREFIX, ProgressTable, progress_rows, read_progress


def unfinished(path: Path) -> dict[str, str]:
    """Returns the provenance of an unfinished run of the progress file at `path` that has labelled an episode; empty if there is none."""
    folder = _partial(path)
    if not (folder / _MARK).is_file() or not any(folder.glob("*.parquet")):
        return {}
    return unfinished_provenance(folder / _MARK)


def remove_unfinished(path: Path, provenance: Mapping[str, str]) -> None:
    """Removes the unfinished folder beside a finished progress file of the same provenance: its run was killed between the two."""
    mark = _partial(path) / _MARK
    if mark.is_file() and made_alike(unfinished_provenance(mark), provenance):
        remove_partial(mark.parent, _MARK, path)


def unfinished_provenance(mark: Path) -> dict[str, str]:
    """Returns the provenance of an unfinished run."""
    return {str(key): str(value) for key, value in read_json_object(mark, what="provenance").items()}


def made_alike(stored: Mapping[str, str], current: Mapping[str, str]) -> bool:
    """Returns whether two provenances give the same labels."""
    return comparable(stored, current) == comparable(current, current)


def comparable(stored: Mapping[str, str], current: Mapping[str, str]) -> dict[str, Any]:
    """Returns a provenance without what cannot change a label: the code's version, the list of episodes, and, where one of the two does not
    have it, where the model was loaded from.

    A default instruction that is new in `current` is ignored too: without it, its episodes were left unknown.
    """
    settings, config, current_config = (
        parse_json(text or "{}", source="the file's provenance")
        for text in (stored.get("settings"), stored.get("config"), current.get("config"))
    )
    if isinstance(settings, dict):
        settings.pop("episodes", None)
    if not stored.get("model_path") or not current.get("model_path"):
        stored = {**stored, "model_path": current.get("model_path", "")}
    if isinstance(config, dict) and isinstance(current_config, dict) and config.get("default_task", 0) is None:
        config["default_task"] = current_config.get("default_task")
    return {**{key: value for key, value in stored.items() if key != "milepost_version"}, "settings": settings, "config": config}


def _shown(about: Mapping[bytes, bytes] | None) -> str:
    return ", ".join(f"{key.decode().removeprefix(METADATA_PREFIX)} {value.decode()}" for key, value in (about or {}).items()) or "none"


def _partial(path: Path) -> Path:
    return path.with_name(f"{path.name}.partial")


_MARK = "provenance.json"
_KEEP_S, _KEEP_FRAMES = 2.0, 1_000_000
"""The seconds, and the frames, that a kill can lose at most of what was added. A part for each episode can cost more than its labels."""


class ProgressStore:
    """A progress file that is being made. Labels reach the disk within seconds, `finish` joins them, and a later run continues them.

    The unfinished parts lie beside the file in `<file>.partial/` with their provenance. Parts of another model, dataset or setting are
    removed and never mixed in. A folder of that name without our mark is refused. The caller must have the file's `output_lock`, because a
    store has one writer.
    """

    def __init__(self, path: Path, provenance: Mapping[str, str], *, anew: bool = False) -> None:
        self.path = Path(path)
        require_file_name(self.path)
        self.provenance = dict(provenance)
        self.folder = _partial(self.path)
        mark = self.folder / _MARK
        if self.folder.is_dir() and any(self.folder.iterdir()) and (anew or self._is_foreign(mark)):
            remove_partial(self.folder, _MARK, self.path)
        if not mark.is_file():
            if self.folder.is_dir():
                self.folder.rmdir()
            with atomic_folder(self.folder) as part:  # it is never there without its mark
                (part / _MARK).write_text(json.dumps(self.provenance, allow_nan=False), encoding="utf-8")
        require_writable(self.folder)
        if unfinished_provenance(mark) != self.provenance:
            write_text(mark, json.dumps(self.provenance, allow_nan=False))
        self._done = {int(n) for part in self._parts() for n in read_table(part, ["episode_index"])["episode_index"].unique().to_pylist()}
        self._columns: dict[str, Mapping[bytes, bytes] | None] = {
            field.name: field.metadata for part in self._parts() for field in pq.read_schema(part)
        }
        self._waiting: list[pa.Table] = []
        self._waiting_frames = 0
        self._kept_at = time.monotonic()
        self._lock = threading.RLock()
        self._alarm: threading.Event | None = None

    def _is_foreign(self, mark: Path) -> bool:
        return not mark.is_file() or not made_alike(unfinished_provenance(mark), self.provenance)

    def _parts(self) -> list[Path]:
        return sorted(self.folder.glob("*.parquet"))

    def has(self, episode: int) -> bool:
        """Returns whether the same model and settings have labelled this episode already."""
        return episode in self._done

    @property
    def holds_any(self) -> bool:
        """Returns whether any episode is labelled."""
        return bool(self._done)

    def adopt(self, earlier: ProgressTable) -> None:
        """Takes over the episodes of a finished file of the same model and settings that have no unknown frame and are not labelled here.

        A file of another provenance is ignored.
        """
        if not made_alike(earlier.made_by, self.provenance):
            return
        table = read_table(self.path)
        is_unknown = np.logical_or.reduce([np.isnan(curve) for curve in (head.value for head in earlier.heads.values())])
        is_new = ~np.isin(earlier.episode_index, [*np.unique(earlier.episode_index[is_unknown]), *self._done])
        if is_new.any():
            self._add(table.filter(pa.array(is_new)).replace_schema_metadata(None), set(earlier.episode_index[is_new].tolist()))

    def add(self, progress: Progress, row: int) -> None:
        """Adds one episode's progress; it is on disk within `_KEEP_S` seconds, and when `keep` is called."""
        self.add_rows(progress_rows(progress, row), progress.episode)

    def add_rows(self, rows: pa.Table, episode: int) -> None:
        """Adds one episode's rows, as `progress_rows` makes them; they are on disk as soon as those of `add`."""
        self._add(rows, {episode})
        if time.monotonic() - self._kept_at > _KEEP_S or self._waiting_frames > _KEEP_FRAMES:
            self.keep()

    def _add(self, rows: pa.Table, episodes: set[int]) -> None:
        for field in rows.schema:
            about = self._columns.setdefault(field.name, field.metadata)
            if about != field.metadata:
                raise DataError(
                    f"episode {min(episodes)}: '{field.name}' has another unit, bound or stage name than in the episodes before "
                    f"({_shown(about)} -> {_shown(field.metadata)}); a column has one for all episodes"
                )
        with self._lock:
            self._waiting.append(rows)
            self._waiting_frames += len(rows)
            self._done |= episodes
            if self._alarm is None:  # what comes next may come much later, as from a cluster whose processes answer in blocks
                self._alarm = threading.Event()
                threading.Thread(target=self._keep_late, args=(self._alarm,), daemon=True).start()

    def _keep_late(self, alarm: threading.Event) -> None:
        if not alarm.wait(_KEEP_S):
            with suppress(OSError, DataError):  # what cannot be written stays, and the next call of `keep` says why
                self.keep()

    def keep(self) -> None:
        """Writes what was added since the last call to disk, as one part."""
        with self._lock:
            self._keep()

    def _keep(self) -> None:
        self._kept_at = time.monotonic()
        if self._alarm is not None:
            self._alarm.set()
            self._alarm = None
        if not self._waiting:
            return
        table = joined(self._waiting)
        first = int(table["episode_index"][0].as_py()) if len(table) else 0  # an episode may have no frame
        with atomic_path(self.folder / f"episodes-{first:06d}-{secrets.token_hex(4)}.parquet") as temporary:
            pq.write_table(table, temporary)
        self._waiting, self._waiting_frames = [], 0

    def finish(self) -> ProgressTable:
        """Joins the parts, sorted by index, into the progress file, and removes them."""
        self.keep()
        parts = self._parts()
        if not parts:
            remove_folder(self.folder, self.path)
            raise DataError("no episode was labelled: there is nothing to write")
        metadata = {f"{METADATA_PREFIX}{key}": value for key, value in self.provenance.items()}
        metadata |= {"reward_model_path": self.provenance.get("model_path", ""), **FORM_METADATA}
        with atomic_path(self.path) as temporary:
            write_joined(parts, temporary, metadata)
        remove_folder(self.folder, self.path)
        return read_progress(self.path)

    def close(self) -> None:
        """Writes what was added to disk; removes the folder if it has no part."""
        if self.folder.is_dir():
            self.keep()
            if not self._parts():
                remove_folder(self.folder, self.path)
