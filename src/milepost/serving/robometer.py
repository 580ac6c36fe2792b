"""The routes of Robometer's own server, so that its clients work with any model here (source: Robometer, evals/eval_server.py).

A request has samples, each a video and its task; the answer has progress and success of every frame. Frames are those of an attempt, from
its first on. In a form, `sample_0`, `sample_1`, ... are JSON whose "frames" name a file of the same form, an .npy of (T, H, W, 3).
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Shaped
from starlette.datastructures import FormData, UploadFile

from milepost.core import DataError, parse_json
from milepost.online import FrameProgress, finite, read_npy
from milepost.serving.later import WholeEpisode

MOST_SAMPLES = 256
"""Videos of one request."""


async def samples_of_form(form: FormData) -> list[tuple[Mapping[str, Any], Shaped[np.ndarray, "..."]]]:
    """Returns (sample, frames) of each sample of a form. DataError if one is not as Robometer's clients send it."""
    matches = ((re.fullmatch(r"sample_([0-9]{1,9})", name), text) for name, text in form.multi_items())
    numbered = {int(match[1]): text for match, text in matches if match}
    samples = []
    for number, text in sorted(numbered.items()):
        where = f"sample_{number}"
        sample = parse_json(text if isinstance(text, str) else "", source=where, remedy="send one JSON text")
        name = _trajectory(sample, where).get("frames")
        name = name.get("__numpy_file__") if isinstance(name, dict) else None
        file = form.get(name) if isinstance(name, str) else None
        if not isinstance(file, UploadFile):
            raise DataError(f"the form has no file '{name}', which the frames of {where} name")
        samples.append((sample, read_npy(await file.read(), f"the file '{name}'")))
    return samples


def samples_of_json(fields: Any) -> list[tuple[Mapping[str, Any], Shaped[np.ndarray, "..."]]]:
    """Returns (sample, frames) of each sample of a JSON body {"samples": [...]}, frames as lists of lists. DataError if it is none."""
    rows = fields.get("samples") if isinstance(fields, dict) else fields
    if not isinstance(rows, list):
        raise DataError("the body should be a JSON object with 'samples', a list")
    samples = []
    for number, sample in enumerate(rows):
        where = f"samples[{number}]"
        try:
            frames = np.asarray(_trajectory(sample, where).get("frames"))
        except ValueError as error:
            raise DataError(f"the frames of {where} are no array: {error}") from error
        samples.append((sample, frames))
    return samples


def episodes_of(
    samples: Sequence[tuple[Mapping[str, Any], Shaped[np.ndarray, "..."]]], cameras: Sequence[str], fps: float
) -> list[WholeEpisode]:
    """Returns the episodes of these samples. DataError names a sample that does not fit, and a model that needs more than a video."""
    if len(cameras) != 1:
        raise DataError(f"a video of one camera is no frame of this model, which looks at {', '.join(cameras) or 'what it does not say'}")
    if not 1 <= len(samples) <= MOST_SAMPLES:
        raise DataError(f"a request has 1 to {MOST_SAMPLES} samples, this one has {len(samples)}")
    return [_episode(f"sample {number}", sample, frames, cameras[0], fps) for number, (sample, frames) in enumerate(samples)]


def answer_of(results: Sequence[Sequence[FrameProgress]]) -> dict[str, Any]:
    """Returns the answer to these samples; an unknown number is null, and "reasons" says why the first one of a sample is."""
    success = [[_success(result) for result in each] for each in results]
    progress = [[finite(result.progress) for result in each] for each in results]
    reasons = [next((result.reason for result in each if result.reason), "") for each in results]
    return {
        "outputs_preference": None,
        "outputs_progress": {"progress_pred": progress},
        "outputs_success": {"success_probs": success},
        "reasons": reasons,
    }


def _success(result: FrameProgress) -> float | None:
    """Returns the model's own probability of success, else 1 or 0 by the threshold; None where nothing is known."""
    if "success" in result.signals:
        return finite(result.signals["success"])
    return None if result.reason else float(result.is_success)


def _trajectory(sample: Any, where: str) -> Mapping[str, Any]:
    if not isinstance(sample, dict) or sample.get("sample_type", "progress") != "progress":
        kind = sample.get("sample_type") if isinstance(sample, dict) else type(sample).__name__
        raise DataError(f"{where} is of the kind {kind!r}; samples of the kind 'progress' are answered here")
    trajectory = sample.get("trajectory")
    if not isinstance(trajectory, dict):
        raise DataError(f"{where} has no 'trajectory'")
    return trajectory


def _episode(where: str, sample: Mapping[str, Any], frames: Shaped[np.ndarray, "..."], camera: str, fps: float) -> WholeEpisode:
    task, shape = sample["trajectory"].get("task"), sample["trajectory"].get("frames_shape")
    if not isinstance(task, str):
        raise DataError(f"{where} has no 'task', the instruction in words")
    is_bytes = frames.dtype.kind in "iu" and (frames.size == 0 or (int(frames.min()) >= 0 and int(frames.max()) <= 255))
    if frames.ndim != 4 or frames.shape[-1] != 3 or not frames.size or not is_bytes:
        raise DataError(
            f"{where} has frames of shape {frames.shape} and type {frames.dtype}; (T, H, W, 3) of whole numbers to 255 is expected"
        )
    if shape is not None and shape != list(frames.shape):
        raise DataError(f"{where} has frames of shape {frames.shape}, and its 'frames_shape' says {json.dumps(shape)[:80]}")
    images = frames.astype(np.uint8)
    return WholeEpisode(task, fps, len(images), lambda frame: {camera: images[frame]}, size=images.nbytes)
