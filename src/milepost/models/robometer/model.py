"""Robometer (arXiv 2603.02115): a Qwen3-VL with heads for progress and success, read at a mark behind each frame that it is shown.

The first frame of an attempt is its zero, so every question shows the attempt from its start, never a window of its end. The vision tower
sees each frame once, and what several questions show alike is computed once (`vlm/heads.py`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Int, UInt8

from milepost.core import Curve, DataError, Progress, Signal, interpolate, spread
from milepost.models.robometer.config import COLUMNS, FORMAT, LEROBOT_FRAMES, QUESTION, WIDTH, RobometerConfig
from milepost.models.zero_shot.model import Places, ZeroShotModel
from milepost.models.zero_shot.sampling import anchors
from milepost.vlm import Engine, FrameEngine, RemoteEngine, RemoteFrameEngine, ServerConfig, load_frame_engine, longest

Path = tuple[int, ...]
"""Numbers of the frames that are shown at once, the newest last."""


class RobometerModel(ZeroShotModel):
    """The config and, from its first question on, the checkpoint it names.

    `predict`: `value` is the progress at the newest frame of each question, drawn straight between the frames that were asked about. The
    signals "progress" and "success" (a probability) are the outputs of the two heads there, NaN elsewhere.

    "dots" is what `milepost.testing.write_example("dots")` writes: six episodes and a progress file.

    >>> from milepost.testing import tiny_robometer
    >>> model = milepost.RobometerModel(milepost.RobometerConfig(vlm_name=str(tiny_robometer("vlm"))))
    >>> sorted(model.predict(milepost.open_dataset("dots")[0]).main.signals)
    ['progress', 'success']
    """

    config_class = RobometerConfig
    HAS_HEADS = True
    config: RobometerConfig

    @property
    def engine(self) -> FrameEngine | RemoteFrameEngine:
        """Returns the checkpoint, loaded (or its server called) when it is first needed. DataError if it cannot be, or is none of
        Robometer's.
        """
        engine = super().engine
        if not isinstance(engine, FrameEngine | RemoteFrameEngine):
            raise DataError("a Robometer needs an engine with heads, from load_frame_engine")
        return engine

    def open(self) -> Engine | RemoteEngine:
        config = self.config
        if config.base_url is not None:
            server = ServerConfig(
                config.base_url, config.vlm_name, api_key_env=config.api_key_env, concurrency=config.concurrency,
                price_per_million=config.price_per_million,
            )  # fmt: skip
            return RemoteFrameEngine(server, mark=FORMAT.mark, columns=COLUMNS, width=WIDTH)
        engine = load_frame_engine(
            config.vlm_name,
            layout=FORMAT,
            revision=config.vlm_revision,
            device=config.device or "cpu",
            dtype=config.torch_dtype,
            attention=config.attn_implementation or "sdpa",
            max_memory=config.max_memory,
        )
        return engine.with_limit(config.max_input_length)

    def looked_at(self, length: int, source_fps: float) -> tuple[Int[np.ndarray, "N"], Float[np.ndarray, "N"]]:
        if self.config.frame_protocol == "dense":
            return super().looked_at(length, source_fps)
        most = length if self.config.frame_protocol == "lerobot" else self.config.max_frames
        frames = np.array(evenly(length, most))
        return frames, frames / source_fps

    def run_settings(self, options: Mapping[str, Any]) -> dict[str, Any]:
        """Returns which checkpoint is asked, how often, how, and which of its heads are not used."""
        return {**super().run_settings(options), "frames_as": "images", "unused": ", ".join(FORMAT.unused)}

    def close(self) -> list[str]:
        """Closes the connections to a server. Returns what of the checkpoint is not used, and what a server was asked, a line each."""
        lines, engine = super().close(), self._engine
        heads = [part.replace("_", " ") for part in engine.unused] if isinstance(engine, FrameEngine) else []
        what = f"{self.config.vlm_name}: these parts of the checkpoint are not used: {', '.join(heads)}"
        return [what, *lines] if heads else lines

    def questions_of(self, count: int, num_prefixes: int | None) -> int:
        """Returns how many questions `count` frames make: an answer about many frames tells what is said of its beginnings."""
        return len(longest(self.paths(count, num_prefixes)))

    def _curves(
        self, images: UInt8[np.ndarray, "N H W 3"], places: Places, tasks: Sequence[str], episode: tuple[int, int], num_prefixes: int | None
    ) -> list[Progress]:
        (frames, _), (episode_index, length) = places, episode
        paths = self.paths(len(frames), num_prefixes)
        at, curves = frames[[path[-1] for path in paths]], []
        for task in tasks:
            outputs = self.engine.read(images, text=QUESTION.format(instruction=task), paths=paths, resolution=self.config.resolution)
            values = {"progress": expected_progress(outputs["progress"]), "success": probability(outputs["success"])}
            signals = {name: Signal(spread(each, at, length), low=0.0, high=1.0) for name, each in values.items()}
            curves.append(Progress(episode_index, Curve(interpolate(at, values["progress"], length), signals=signals)))
        return curves

    def paths(self, count: int, num_prefixes: int | None = None) -> list[Path]:
        """Returns what is shown in each question, as numbers of the `count` frames looked at. num_prefixes: as in `predict`.

        DataError for num_prefixes with "published", which is one pass.
        """
        if self.config.frame_protocol == "published":
            if num_prefixes is not None:
                raise DataError("num_prefixes means nothing to frame_protocol='published', which is one pass over max_frames frames")
            return [tuple(range(number + 1)) for number in range(count)]  # a pass over all gives what passes over its beginnings give
        prefixes = anchors(count, num_prefixes).tolist()
        if self.config.frame_protocol == "lerobot":
            return [tuple(np.linspace(0, n - 1, LEROBOT_FRAMES).round().astype(int).tolist()) for n in prefixes]
        return [tuple(evenly(n, self.config.max_frames)) for n in prefixes]


def evenly(count: int, most: int) -> list[int]:
    """Returns at most so many of the numbers 0 to count - 1, evenly spaced, first and last among them.

    >>> evenly(10, 4), evenly(2, 4)
    ([0, 3, 6, 9], [0, 1])
    """
    numbers: list[int] = np.linspace(0, count - 1, min(most, count)).round().astype(int).tolist()
    return numbers


def expected_progress(logits: Float[np.ndarray, "P B"]) -> Float[np.ndarray, "P"]:
    """Returns the mean of B evenly spaced centres from 0 to 1 under the softmax of the logits, float32.

    >>> expected_progress(np.array([[0.0, 0.0, 0.0], [0.0, 0.0, 50.0]])).tolist()
    [0.5, 1.0]
    """
    mass = np.exp(logits.astype(np.float64) - logits.max(-1, keepdims=True))
    progress: Float[np.ndarray, "P"] = (mass @ np.linspace(0.0, 1.0, logits.shape[-1]) / mass.sum(-1)).astype(np.float32)
    return progress


def probability(logits: Float[np.ndarray, "P 1"]) -> Float[np.ndarray, "P"]:
    """Returns the sigmoid of one logit each, float32."""
    sigmoid: Float[np.ndarray, "P"] = (0.5 * (1.0 + np.tanh(0.5 * logits[:, 0].astype(np.float64)))).astype(np.float32)
    return sigmoid
