"""What the numbers of a reward model must be: progress, stage probabilities, signals, an identity. ModelError says what is wrong.

What is unknown is NaN, so it is never refused here; what contradicts itself is.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from milepost.core.errors import ModelError

SUM_ERROR = 1e-3
"""Largest difference of the sum of stage probabilities from 1: half precision has this error."""
ROUNDING = 1e-5
"""A signal may be this far outside its bounds, as a proportion of them, by rounding."""


def require_progress(value: Any) -> None:
    """Raises ModelError unless this is progress: a float32 array of shape (T,), in [0, 1] or NaN."""
    _require_array("progress", value, "(T,)")
    if value.ndim != 1 or value.dtype != np.float32:
        raise ModelError(f"progress must be a float32 array of shape (T,), got {value.dtype} {value.shape}")
    if not np.all(np.isnan(value) | ((value >= 0) & (value <= 1))):
        raise ModelError(f"progress must lie in [0, 1] or be NaN, got {np.nanmin(value)}..{np.nanmax(value)}")


def require_signal(name: Any, values: Any, unit: Any, length: int) -> None:
    """Raises ModelError unless a signal has a name, a unit in words, and one number for each frame."""
    if not isinstance(name, str) or not name or not isinstance(unit, str):
        raise ModelError(f"a signal has a name and a unit, both strings; got {name!r} and {unit!r}")
    _require_array(f"the signal '{name}'", values, "(T,)")
    _require_length(name, values, length)
    if values.ndim != 1 or values.dtype.kind not in "fiu":
        raise ModelError(f"the signal '{name}' must be numbers of shape (T,), got {values.dtype} {values.shape}")


def require_stages(stage: Any, names: Sequence[Any], length: int) -> None:
    """Raises ModelError unless these are numbers (T, K) with a name for each of the K stages, or none."""
    _require_array("stage", stage, "(T, K)")
    _require_length("stage", stage, length)
    if stage.ndim != 2 or stage.dtype.kind != "f":
        raise ModelError(f"stage must be probabilities of shape (T, K), got {stage.dtype} {stage.shape}")
    if names and len(names) != stage.shape[1]:
        raise ModelError(f"{len(names)} stage names for {stage.shape[1]} stages")
    if wrong := [name for name in names if not isinstance(name, str)]:
        raise ModelError(f"the names of stages must be strings, got {wrong[0]!r}")
    if twice := [name for name in names if list(names).count(name) > 1]:
        raise ModelError(f"the stage name '{twice[0]}' stands twice in {', '.join(names)}; each stage has a name of its own")


def require_sound(heads: Mapping[str, Any]) -> None:
    """Raises ModelError if a curve of a model contradicts itself. Not asked of a file: columns of it may have been left out.

    heads: name -> Curve.
    """
    lengths = {name: len(curve) for name, curve in heads.items()}
    if len(set(lengths.values())) > 1:
        raise ModelError(f"the heads of one episode have different lengths: {lengths}")
    for curve in heads.values():
        for name, signal in curve.signals.items():
            _require_within(name, signal.values, signal.low, signal.high)
        if curve.stage is not None:
            _require_probabilities(curve.stage)


def _require_within(name: str, values: Float[np.ndarray, "T"], low: float, high: float) -> None:
    """Raises ModelError unless a signal lies within the bounds that it states."""
    numbers = values[~np.isnan(values)]
    slack = ROUNDING * max([1.0, *(abs(bound) for bound in (low, high) if np.isfinite(bound))])
    if len(numbers) and (numbers.min() < low - slack or numbers.max() > high + slack):
        extent = f"{numbers.min():g}..{numbers.max():g}"
        raise ModelError(f"the signal '{name}' states that it lies in [{low:g}, {high:g}], its values are {extent}")


def _require_probabilities(stage: Float[np.ndarray, "T K"]) -> None:
    """Raises ModelError unless the stage probabilities sum to 1 in each frame without NaN."""
    probabilities: Float[np.ndarray, "N K"] = stage[~np.isnan(stage).any(axis=1)]
    if not len(probabilities):
        return
    sums = probabilities.sum(axis=1)
    if probabilities.min() < -SUM_ERROR or not np.abs(sums - 1).max() <= SUM_ERROR:
        raise ModelError(
            "the stage probabilities of a frame must be at least 0 and sum to 1, or be NaN; "
            f"the least is {probabilities.min():g}, the sums are {sums.min():g}..{sums.max():g}"
        )


def identity_fault(identity: Any) -> str:
    """Returns what is wrong with what a model's `identity()` returned, "" if nothing is."""
    plain = "identity() should be plain values that JSON can hold: a dict, by name, of finite numbers, strings, lists and dicts"
    if not isinstance(identity, Mapping):
        return f"{plain}; it returned {type(identity).__name__}"
    try:
        json.dumps(dict(identity), allow_nan=False)
    except (TypeError, ValueError) as error:
        return f"{plain} ({error})"
    return "" if _has_text_keys(identity) else f"{plain}; a key in it is not a string"


def _has_text_keys(value: Any) -> bool:
    if isinstance(value, Mapping):
        return all(isinstance(key, str) and _has_text_keys(each) for key, each in value.items())
    return not isinstance(value, list | tuple) or all(map(_has_text_keys, value))


def _require_array(name: str, values: Any, shape: str) -> None:
    if not isinstance(values, np.ndarray):
        raise ModelError(
            f"{name} must be a NumPy array of shape {shape}, got {type(values).__name__}: np.asarray(..., np.float32) makes one"
        )


def _require_length(name: str, values: np.ndarray, length: int) -> None:
    if values.ndim == 0 or len(values) != length:
        raise ModelError(f"'{name}' has {values.size if values.ndim == 0 else len(values)} frames, the curve has {length}")
