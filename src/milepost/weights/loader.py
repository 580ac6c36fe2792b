"""Weights in a training loop: `weights[batch["index"]]`, LeRobot's weighter interface, a sampler. What comes in decides what goes out.

numpy gives numpy; a torch tensor gives a tensor on its device, without waiting for the device. Weights and statistics are the whole
dataset's, read from a file, so every process has the same; no model is looked at. Torch is imported only when a tensor is asked for.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from milepost.core import DataError, brief_text, parse_json, to_json
from milepost.progress import read_progress
from milepost.weights.config import RabcConfig
from milepost.weights.file import read_weights_file, write_weights_file
from milepost.weights.result import WeightResult, weigh

_DRAW_BLOCK = 1 << 16
"""Positions drawn at a time."""
_MOST_GAPS = 100_000_000
"""Indices without a row that the look-up table may have: more (400 MB) means that the index is not a dataset's."""


class SampleWeights:
    """A weight for every frame of a dataset, by its global index.

        weights = SampleWeights.load("weights.parquet")
        loss = weighted_mean(loss_per_sample, weights[batch["index"]])

    Frames without a row get the file's fallback weight and are counted in `missing`.

    "dots" is what `milepost.testing.write_example("dots")` writes: six episodes and a progress file.

    >>> import numpy as np
    >>> weights = milepost.SampleWeights.from_progress("dots/elapsed_progress.parquet", config=milepost.RabcConfig(chunk_size=5))
    >>> len(weights), weights[np.array([0, 1, 2])].tolist()
    (171, [1.0, 1.0, 1.0])
    """

    def __init__(
        self,
        index: Int[np.ndarray, "N"],
        weight: Float[np.ndarray, "N"],
        *,
        fallback_weight: float = 1.0,
        statistics: Mapping[str, Any] | None = None,
        device: Any = None,
    ) -> None:
        """Builds the look-up table. device: where `compute_batch_weights` puts its tensor, such as "cuda"; None keeps the device of the
        batch's index.

        DataError if there is no row, an index is below 0 or comes twice.
        """
        if not len(index):
            raise DataError("no weights: the file has no row")
        order = np.argsort(index, kind="stable")
        self.index, self.weight = index[order].astype(np.int64), weight[order].astype(np.float32)
        if self.index[0] < 0 or np.any(self.index[1:] == self.index[:-1]):
            raise DataError("weights need every index once, from 0 on; make the file again with milepost weigh")
        self.fallback_weight, self.device = float(fallback_weight), device
        self._statistics = dict(statistics or {})
        if self.index[-1] - self.index[0] > _MOST_GAPS + 100 * len(self.index):
            words = f"{len(self.index)} rows from {self.index[0]} to {self.index[-1]}"
            raise DataError(f"the weights' index is no dataset's: it has {words}")
        self._first = int(self.index[0]) - 1  # the table begins and ends with a frame that has no row: where indices outside are sent
        self._table = np.full(int(self.index[-1]) - self._first + 2, np.nan, dtype=np.float32)
        self._table[self.index - self._first] = self.weight
        self._on: dict[str, Any] = {}
        self._missing: dict[str, Any] = {}

    @classmethod
    def load(cls, path: str | Path, *, device: Any = None) -> SampleWeights:
        """Reads a file of `milepost weigh`, or any parquet with `index` and `weight` (its fallback weight is 1). DataError if it is
        neither."""
        index, weight, metadata = read_weights_file(Path(path))
        config, statistics = (parse_json(metadata.get(key, "{}"), source=f"the metadata of {path}") for key in ("rabc", "statistics"))
        fallback = config.get("fallback_weight", 1.0) if isinstance(config, dict) else 1.0
        numbers = statistics if isinstance(statistics, dict) else {}
        numbers = {name: math.nan if value is None else value for name, value in numbers.items()}  # JSON has null for an unknown number
        return cls(index, weight, fallback_weight=fallback, statistics=numbers, device=device)

    @classmethod
    def from_progress(
        cls, path: str | Path, *, config: RabcConfig, head_mode: str = "sparse", fps: float | None = None, device: Any = None
    ) -> SampleWeights:
        """Computes weights from a progress file, as LeRobot's weighter does. Statistics by task need the dataset: use `milepost weigh` for
        them."""
        progress = read_progress(Path(path))
        result = weigh(progress.index, progress.episode_index, progress.values(head_mode), config=config, fps=fps)
        return cls.of(result, head_mode=head_mode, device=device)

    @classmethod
    def of(cls, result: WeightResult, *, head_mode: str = "sparse", device: Any = None) -> SampleWeights:
        """Builds them from weights in memory."""
        one = result.one_kappa
        statistics = {
            "type": result.config.rule,
            "num_frames": result.known_frames,
            "chunk_size": result.config.chunk_size,
            "head_mode": head_mode,
            "delta_mean": result.delta_mean,
            "delta_std": result.delta_std,
            "kappa": float(result.kappa.mean()) if one is None else one,
        }
        fallback = result.config.fallback_weight
        return cls(result.index, result.weight, fallback_weight=fallback, statistics=statistics, device=device)

    def save(self, path: Path, config: RabcConfig, settings: Mapping[str, str]) -> None:
        """Writes `index` and `weight`; the file's metadata has the config, the statistics and `settings`."""
        options = {"rabc": json.dumps(dataclasses.asdict(config), allow_nan=False), "statistics": to_json(self._statistics)}
        write_weights_file(path, self.index, self.weight, {**settings, **options})

    def __repr__(self) -> str:
        return brief_text("SampleWeights", {"weight": self.weight, "mean": self.mean, "fallback_weight": self.fallback_weight})

    def __len__(self) -> int:
        return len(self.index)

    @property
    def mean(self) -> float:
        """Returns the mean weight over the dataset, as `weighted_mean(mean_weight=...)` takes it."""
        return float(self.weight.mean(dtype=np.float64))

    @property
    def missing(self) -> int:
        """Counts the frames without a row that were looked up so far; they got the fallback weight."""
        return sum(int(count) for count in self._missing.values())

    def __getitem__(self, index: Any) -> Any:
        """Returns float32 weights of the index's shape: an array for numbers, lists and arrays; for a tensor, a tensor on the same device.

        DataError if the index is not of whole numbers.
        """
        if is_tensor(index):
            return self._tensor(index)
        index = np.asarray(index)
        if index.dtype.kind not in "iu":
            raise DataError(f"an index is of whole numbers, got {index.dtype}; it is the dataset's column 'index'")
        weight = self._table[np.clip(index.astype(np.int64) - self._first, 0, len(self._table) - 1)]
        missing = np.isnan(weight)
        self._missing["numpy"] = self._missing.get("numpy", 0) + int(missing.sum())
        return np.where(missing, np.float32(self.fallback_weight), weight)

    def _tensor(self, index: Any) -> Any:
        import torch

        if index.is_floating_point() or index.is_complex() or index.dtype == torch.bool:
            raise DataError(f"an index is of whole numbers, got {index.dtype}; it is the dataset's column 'index'")
        where = str(index.device)
        if where not in self._on:
            self._on[where] = torch.from_numpy(self._table).to(index.device)
            self._missing[where] = torch.zeros((), dtype=torch.int64, device=index.device)
        weight = self._on[where][(index.to(torch.int64) - self._first).clamp(0, len(self._table) - 1)]
        missing = torch.isnan(weight)
        self._missing[where] += missing.sum()
        return torch.where(missing, self.fallback_weight, weight)

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_on": {}, "_missing": {}}  # another process has its own copies and counts

    def compute_batch_weights(self, batch: Mapping[str, Any]) -> tuple[Any, dict[str, float]]:
        """Implements LeRobot's `SampleWeighter`: returns (weights (B,) that sum to B, numbers to log). `batch["index"]` has global indices.

        A batch that weighs nothing has weights 0. DataError if there is no "index": training would go on without weights.
        """
        if "index" not in batch:
            raise DataError(f"the batch has no 'index' to look weights up by; keep that column of the dataset. It has: {', '.join(batch)}")
        weight = self[batch["index"]]
        stats = batch_stats(weight)
        return _moved(weight * (len(weight) / (weight.sum() + 1e-6)), self.device), stats

    def get_stats(self) -> dict[str, Any]:
        """Returns statistics of the whole dataset under LeRobot's names: type, num_frames, chunk_size, head_mode, delta_mean, delta_std,
        kappa."""
        return dict(self._statistics)

    def metrics(self, weight_B: Any) -> dict[str, Any]:
        """Returns numbers to log in your own loop, under LeRobot's names: `sample_weight_*` of a batch, `sample_weighting/*`."""
        batch = {f"sample_weight_{name}": number for name, number in batch_stats(weight_B).items()}
        return batch | {f"sample_weighting/{name}": number for name, number in self.get_stats().items()}

    def sampler(self, index: Any, num_samples: int | None = None, *, seed: int = 0, rank: int = 0) -> WeightedSampler:
        """Returns a sampler that draws frames by weight; use it instead of a weighted loss. index: the global index of each position of the
        torch dataset, or the number of positions if the positions are the indices. Frames of weight 0 are never read."""
        index = np.arange(index) if isinstance(index, int) else np.asarray(index)
        return WeightedSampler(self[index], num_samples, seed=seed, rank=rank)


class UniformWeights:
    """Weight 1 for every frame, with the interface of SampleWeights: the baseline without another line changed.

    >>> import numpy as np
    >>> milepost.UniformWeights()[np.array([3, 4])].tolist()
    [1.0, 1.0]
    """

    def __init__(self, device: Any = None) -> None:
        self.device = device

    mean, missing = 1.0, 0

    def __getitem__(self, index: Any) -> Any:
        if not is_tensor(index):
            return np.ones(np.shape(index), dtype=np.float32)
        import torch

        return torch.ones(index.shape, dtype=torch.float32, device=index.device)

    def compute_batch_weights(self, batch: Mapping[str, Any]) -> tuple[Any, dict[str, float]]:
        """Returns one weight of 1 per sample. The batch size is that of "index" or "action", else of the first array; DataError if there is
        none."""
        preferred = [batch[name] for name in ("index", "action") if name in batch]
        first = next((each for each in (*preferred, *batch.values()) if getattr(each, "ndim", 0) > 0), None)
        if first is None:
            raise DataError(f"the batch has no array or tensor to tell its size by; it has: {', '.join(batch) or 'nothing'}")
        weight = self[first if first.ndim == 1 else first.reshape(len(first), -1)[:, 0]]
        return _moved(weight, self.device), batch_stats(weight)

    def sampler(self, index: Any, num_samples: int | None = None, *, seed: int = 0, rank: int = 0) -> WeightedSampler:
        """Returns a sampler like `SampleWeights.sampler`: all positions have equal weight, with replacement."""
        return WeightedSampler(self[np.arange(index) if isinstance(index, int) else index], num_samples, seed=seed, rank=rank)

    def get_stats(self) -> dict[str, Any]:
        """Returns the statistics that LeRobot logs."""
        return {"type": "uniform"}

    def metrics(self, weight_B: Any) -> dict[str, Any]:
        """Returns what `SampleWeights.metrics` returns."""
        return {f"sample_weight_{name}": number for name, number in batch_stats(weight_B).items()} | {"sample_weighting/type": "uniform"}


class WeightedSampler:
    """Positions drawn with replacement in proportion to their weights, for `DataLoader(sampler=...)`; a new draw every epoch.

    The same (seed, epoch, rank) gives the same positions. Processes that each load their own batches take their rank; behind
    `accelerator.prepare`, which deals out the batches of one sampler, all take rank 0. Weights may be any number of frames (torch's own
    sampler stops at 2^24). DataError if no weight is above 0.

    >>> import numpy as np
    >>> sampler = milepost.WeightedSampler(np.array([0.0, 1.0, 0.0, 3.0], dtype=np.float32), num_samples=1000)
    >>> sorted(set(sampler))
    [1, 3]
    """

    def __init__(self, weight: Float[np.ndarray, "N"], num_samples: int | None = None, *, seed: int = 0, rank: int = 0) -> None:
        weight = np.asarray(weight, dtype=np.float64)
        if not len(weight) or not np.all(np.isfinite(weight) & (weight >= 0)) or not weight.any():
            raise DataError("a sampler needs weights that are finite, at least 0, and not all 0")
        self.num_samples = len(weight) if num_samples is None else num_samples
        self.seed, self.rank, self.epoch = seed, rank, 0
        self._rising = np.cumsum(weight)
        self._last = int(np.flatnonzero(weight)[-1])

    def __len__(self) -> int:
        return self.num_samples

    def set_epoch(self, epoch: int) -> None:
        """Sets the epoch of the next pass, to resume a training run."""
        self.epoch = epoch

    def __iter__(self) -> Iterator[int]:
        rng = np.random.default_rng((self.seed, self.epoch, self.rank))
        self.epoch += 1
        for start in range(0, self.num_samples, _DRAW_BLOCK):
            points = rng.random(min(_DRAW_BLOCK, self.num_samples - start)) * self._rising[-1]
            yield from np.minimum(np.searchsorted(self._rising, points, side="right"), self._last).tolist()


def is_tensor(array: Any) -> bool:
    """Returns whether this is a torch tensor, without importing torch."""
    return type(array).__module__.partition(".")[0] == "torch" or hasattr(array, "is_floating_point")


def batch_stats(weight_B: Any) -> dict[str, float]:
    """Returns mean_weight, num_zero_weight and num_full_weight (1 or more) of a batch as plain numbers, with one transfer from the
    device."""
    if is_tensor(weight_B):
        import torch

        mean, zero, full = torch.stack([weight_B.mean(), (weight_B == 0).sum(), (weight_B >= 1).sum()]).tolist()
    else:
        mean, zero, full = weight_B.mean(), (weight_B == 0).sum(), (weight_B >= 1).sum()
    return {"mean_weight": float(mean), "num_zero_weight": int(zero), "num_full_weight": int(full)}


def _moved(weight: Any, device: Any) -> Any:
    """Returns the weights as a tensor on that device, or unchanged if `device` is None."""
    if device is None:
        return weight
    import torch

    return torch.as_tensor(weight).to(device)
