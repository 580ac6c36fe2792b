"""Advantage labels on disk, in the form that RLinf reads: `meta/advantages_{tag}.parquet` and `meta/returns_{tag}.parquet`.

RLinf's reader takes (episode_index, frame_index) as the key of a row, needs the boolean `advantage`, and refuses a dataset of which a frame
is missing. Source: RLinf's `recap` datasets, November 2026. Its returns count frames: a reward of -1 a frame, 0 at success, and -300 at the
end of a failure.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import Float

from milepost.core import FORM_METADATA, DataError, atomic_path, real_path
from milepost.datasets import cache_name
from milepost.progress import METADATA_PREFIX
from milepost.weights.advantage import EpisodeLabels, EpisodeProgress

FAILURE_REWARD = -300.0


def advantage_paths(folder: Path, tag: str) -> tuple[Path, Path]:
    """Returns the paths of labels and returns in a folder. ValueError for a tag that is no plain name."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]*", tag):
        raise ValueError(f"--tag has letters, digits, '_', '-' and '.', and begins with a letter or digit; got {tag!r}")
    return folder / "meta" / f"advantages_{tag}.parquet", folder / "meta" / f"returns_{tag}.parquet"


def write_advantages(
    folder: Path, tag: str, episodes: Sequence[EpisodeProgress], labels: Sequence[EpisodeLabels], metadata: Mapping[str, str]
) -> tuple[Path, Path]:
    """Writes both files and returns their paths. metadata: how they were made, kept in the files.

    Labels: `advantage` bool and `advantage_continuous` float32, in tasks, NaN where unknown. Returns: `return` and `reward` float32, in
    frames, and `prompt`. Every frame of every episode has a row.
    """
    paths = advantage_paths(folder, tag)
    key = {
        "episode_index": np.concatenate([np.full(len(each.is_positive), each.episode) for each in labels]),
        "frame_index": np.concatenate([np.arange(len(each.is_positive)) for each in labels]),
    }
    reward = [_rewards(each) for each in episodes]
    returns = [np.cumsum(each[::-1])[::-1] for each in reward]
    tables = (
        key
        | {
            "advantage": np.concatenate([each.is_positive for each in labels]),
            "advantage_continuous": np.concatenate([each.advantage for each in labels]).astype(np.float32),
        },
        key
        | {
            "return": np.concatenate(returns).astype(np.float32),
            "reward": np.concatenate(reward).astype(np.float32),
            "prompt": np.concatenate([np.full(len(each.progress), each.task, dtype=object) for each in episodes]),
        },
    )
    about = {f"{METADATA_PREFIX}{name}": value for name, value in metadata.items()} | FORM_METADATA
    for path, columns in zip(paths, tables, strict=True):
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_path(path) as temporary:
            pq.write_table(pa.table({name: pa.array(values) for name, values in columns.items()}).replace_schema_metadata(about), temporary)
    return paths


def _rewards(each: EpisodeProgress) -> Float[np.ndarray, "T"]:
    rewards = np.full(len(each.progress), -1.0)
    rewards[-1] = FAILURE_REWARD if each.has_failed else 0.0
    return rewards


def require_own_advantages(paths: Sequence[Path], *, overwrite: bool, dataset_fingerprint: str = "") -> None:
    """Raises DataError if one of the files is there and another program made it, or of another dataset, or if it is in the Hub's cache.

    dataset_fingerprint: of the dataset that the new ones are of; "" if any will do.
    """
    for path in paths:
        if cache := cache_name(path.expanduser().absolute()) or cache_name(real_path(path)):
            raise DataError(f"{path.parent.parent} is in {cache}, which is never written into: give another --output-dir")
        if path.exists() and not overwrite and not _is_ours(path):
            raise DataError(f"{path} was not written by milepost advantage; use --overwrite, or another --tag or --output-dir")
        other = _metadata(path).get("dataset_fingerprint", "") if path.exists() and not overwrite else ""
        if dataset_fingerprint and other and other != dataset_fingerprint:
            raise DataError(
                f"{path} has the labels of another dataset ('{_metadata(path).get('dataset', '')}'); use another --tag or --output-dir, or "
                "--overwrite"
            )


def _is_ours(path: Path) -> bool:
    return bool(_metadata(path))


def _metadata(path: Path) -> dict[str, str]:
    """Returns what milepost noted in a file; nothing if it is another program's."""
    try:
        entries = pq.read_schema(path).metadata or {}
    except (pa.ArrowInvalid, OSError):
        return {}
    text = {key.decode("utf-8", "replace"): value.decode("utf-8", "replace") for key, value in entries.items()}
    return {key.removeprefix(METADATA_PREFIX): value for key, value in text.items() if key.startswith(METADATA_PREFIX)}
