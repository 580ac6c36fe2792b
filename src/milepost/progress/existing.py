"""Says what an existing progress file, or an unfinished run of one, is of: so that nobody's labels are replaced or mixed unasked."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from milepost.core import DataError
from milepost.progress.store import comparable, unfinished
from milepost.progress.table import ProgressTable, read_progress, unknown_frames

_WORDS = {
    "model_path": "model", "model_type": "model", "weights_sha256": "weights", "config": "config", "dataset_fingerprint": "dataset",
    "run": "model without identity()", "part_of": "dataset, of which this one is a part",
}  # fmt: skip
_INSTEAD = "use --overwrite{anew} or another --output-path (in Python overwrite=True or another path)"


def existing_result(
    path: Path, provenance: Mapping[str, str], episodes: Sequence[int], *, flags: Collection[str] = ()
) -> ProgressTable | None:
    """Returns the finished progress file at `path` if it has these labels of all these episodes, None if there is work to do.

    flags: the settings that the message writes as options of the command line. DataError if the file, or an unfinished run, is of another
    model, or was made with other settings: both would be lost. A finished file that lacks some of these episodes may be of an older state
    of the dataset.
    """
    if path.is_dir():
        raise DataError(f"{path} is a folder; give the name of a file in it (--output-path)")
    if path.exists():
        existing = read_progress(path)
        other = _differences(existing.made_by, provenance, flags)
        unknown = {*unknown_frames(existing), *(set(episodes) - set(existing.episode_index.tolist()))} & set(episodes)
        if other and not (other == ["dataset"] and unknown):
            raise DataError(f"{path} was made with another {', '.join(other)}; {_INSTEAD.format(anew='')}")
        if not (other or unknown):
            return existing
    unfinished_run = unfinished(path)
    if unfinished_run and (other := _differences(unfinished_run, provenance, flags)):
        raise DataError(f"{path} was begun with another {', '.join(other)}, and is unfinished; {_INSTEAD.format(anew=' to begin anew,')}")
    return None


def _differences(existing: Mapping[str, str], expected: Mapping[str, str], flags: Collection[str]) -> list[str]:
    """Returns the differences of two provenances, in the user's words."""
    old, expected = comparable(existing, expected), comparable(expected, expected)
    other = list(dict.fromkeys(words for key, words in _WORDS.items() if old.get(key) != expected.get(key)))
    before, now = old["settings"], expected["settings"]
    changed = ["head_mode" if name == "heads" else name for name in {**before, **now} if before.get(name) != now.get(name)]
    return other + [f"--{name.replace('_', '-')}" if name in flags else name for name in changed]
