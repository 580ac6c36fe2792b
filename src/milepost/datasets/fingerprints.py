"""Fingerprints of a dataset: hashes that change with its frames, computed without reading all of its bytes.

Of each data and video file, the size and 16 blocks of 4 kB spread over it are hashed (`sampled_digest`; a file of up to 64 kB is hashed
whole), the last block with the footer of a parquet file. A name, time or owner of a file on the disk has no influence. What goes unnoticed
is an edit that keeps a file's size and changes only bytes between the blocks.

The entries of meta/ are hashed as one JSON text, a block at a time: a million episodes need no more memory than a thousand. The text is
the same as ever, so files that were made by earlier versions are still known.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from typing import Any

from milepost.core import sampled_digest
from milepost.datasets.episode_arrays import EpisodeArrays
from milepost.datasets.hub import Files
from milepost.datasets.records import Metadata

_BLOCK = 16_384
"""Entries of meta/ that are hashed at a time."""


def fingerprint(files: Files, meta: Metadata) -> str:
    """Returns 16 hex digits of fps, features, each episode's index, length and tasks, and the data and video files (or the commit)."""
    return _hashed(meta, {"features": meta.features, "files": files.commit or contents(files, meta)})


def footage_fingerprint(files: Files, meta: Metadata) -> str:
    """Returns 16 hex digits as `fingerprint` does, without the data files and features: of fps, cameras, episodes and video files."""
    return _hashed(meta, {"cameras": list(meta.cameras), "files": files.commit or contents(files, meta, tables=False)})


def contents(files: Files, meta: Metadata, *, tables: bool = True) -> list[tuple[str, int, str]]:
    """Returns name, size and digest of the video files, and of the data files with `tables`; size -1 for a file that is not there."""
    names = {name for camera in meta.all_cameras for name in meta.video_names(camera)}
    names |= {name for name in meta.arrays.names if name} if tables else set()
    paths = {name: files.path(name) for name in sorted(names)}
    return [(name, *sampled_digest(path)) if path.is_file() else (name, -1, "") for name, path in paths.items()]


def _hashed(meta: Metadata, content: Mapping[str, Any]) -> str:
    """Returns the hash of the content and the episodes, as one JSON object with sorted keys."""
    content = {**content, "fps": meta.fps, "episodes": None} | ({"parts": meta.odd_parts} if meta.odd_parts else {})
    digest, before = hashlib.sha256(), "{"
    for name in sorted(content):
        digest.update(f'{before}"{name}": '.encode())
        for text in _entries(meta.arrays) if name == "episodes" else (json.dumps(content[name], sort_keys=True),):
            digest.update(text.encode())
        before = ", "
    digest.update(b"}")
    return digest.hexdigest()[:16]


def _entries(arrays: EpisodeArrays) -> Iterator[str]:
    """Yields `[[index, length, [task, ...]], ...]` in pieces."""
    words, before = [json.dumps(list(tasks)) for tasks in arrays.tasks], "["
    for start in range(0, len(arrays.number), _BLOCK):
        block = slice(start, start + _BLOCK)
        columns = zip(arrays.number[block].tolist(), arrays.length[block].tolist(), arrays.task[block].tolist(), strict=True)
        yield before + ", ".join([f"[{number}, {length}, {words[task]}]" for number, length, task in columns])
        before = ", "
    yield "]" if before == ", " else "[]"
