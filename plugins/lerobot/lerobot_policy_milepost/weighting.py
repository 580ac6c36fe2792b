"""`--sample_weighting.type=milepost`: the weights of `milepost weigh` in the training of any policy of LeRobot.

LeRobot makes its weighter by one function that knows two types and has no registry, so that function is replaced here, at run time. It
hands every other type on. Where a policy gives a loss for each sample, the loss is weighted. Where it does not (ACT, Diffusion), LeRobot's
sampler draws frames by weight instead (`sampling.py`).

LeRobot divides a weighted loss by the weights of each process's own batch. Here the loss of each process is scaled, so that the mean
over the processes is the loss of one process with the whole batch.
"""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import inspect
import logging
from collections.abc import Callable, Iterator, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lerobot.utils import sample_weighting
from lerobot.utils.sample_weighting import SampleWeighter, SampleWeightingConfig
from torch import Tensor

from lerobot_policy_milepost.requirements import ChangedError, replace, require_parameters
from milepost import DataError, SampleWeights, open_dataset
from milepost.core import count_noun
from milepost.datasets import LeRobotDataset
from milepost.models import current_process_group
from milepost.weights import match_weights

log = logging.getLogger(__name__)
TYPE = "milepost"
PARAMETERS = ("config", "policy", "device", "dataset_root", "dataset_repo_id")
"""What LeRobot's function takes in the tested version."""
WAYS = ("loss", "sampler")
"""How weights act: `extra_params={"by": ...}`."""
EPSILON = 1e-6
"""What LeRobot adds to the sum of a batch's weights before it divides by it."""


def offer_weights() -> None:
    """Makes `milepost` a type of sample weighting. Where LeRobot's function has changed, this is said and nothing is replaced: LeRobot
    itself then refuses the type.
    """
    lerobots = sample_weighting.make_sample_weighter
    if isinstance(lerobots, MakeWeighter):
        return
    try:
        require_parameters(lerobots, PARAMETERS, "make_sample_weighter")
    except ChangedError as error:
        log.error("--sample_weighting.type=milepost is not there: %s", error)
        return
    replace(sample_weighting, "make_sample_weighter", MakeWeighter(lerobots))


class MakeWeighter:
    """LeRobot's function, and `milepost` as one more type. lerobots: the function, which is asked for every other type."""

    def __init__(self, lerobots: Callable[..., Any]) -> None:
        self.lerobots = lerobots

    def __call__(
        self,
        config: SampleWeightingConfig | None,
        policy: Any,
        device: torch.device,
        dataset_root: str | None = None,
        dataset_repo_id: str | None = None,
    ) -> SampleWeighter | None:
        """Returns what weighs a batch's samples; None where nothing does, or the sampler draws by weight."""
        if config is None or config.type != TYPE:
            with milepost_named(config):
                return self.lerobots(config, policy, device, dataset_root=dataset_root, dataset_repo_id=dataset_repo_id)
        way = required_way(config, policy)
        dataset = open_dataset(folder_of(dataset_root, dataset_repo_id))
        weights = load_weights(path_of(config.progress_path, dataset), dataset)
        if way == "sampler":
            import_module("lerobot_policy_milepost.sampling").draw_by_weight(weights, policy)
            return None
        return MilepostWeighter(weights, device, policy)


@contextlib.contextmanager
def milepost_named(config: SampleWeightingConfig | None) -> Iterator[None]:
    """Adds milepost to the types that LeRobot's function lists when it does not know the one that was asked for."""
    try:
        yield
    except ValueError as error:
        if config is None or f"'{config.type}'" not in str(error) or "types" not in str(error):
            raise
        near = "; did you mean milepost?" if difflib.get_close_matches(config.type, [TYPE]) else ""
        raise ValueError(f"--sample_weighting.type: {error}, and '{TYPE}' of the plugin{near}") from None


def required_way(config: SampleWeightingConfig, policy: Any) -> str:
    """Returns "loss" or "sampler": the one that was asked for, else the loss if the policy gives one for each sample.

    DataError if an option would do nothing or is unknown, or if the policy cannot do what was asked for.
    """
    defaults = {field.name: field.default for field in dataclasses.fields(SampleWeightingConfig)}
    idle = [name for name in ("head_mode", "kappa", "epsilon") if getattr(config, name) != defaults[name]]
    if idle:
        raise DataError(f"--sample_weighting.{idle[0]} does nothing with type=milepost, whose weights are made: give it to milepost weigh")
    if unknown := sorted(set(config.extra_params) - {"by"}):
        raise DataError(f"--sample_weighting.extra_params has '{unknown[0]}', and type=milepost knows 'by' alone")
    way = config.extra_params.get("by")
    if way not in (None, *WAYS):
        raise DataError(f"--sample_weighting.extra_params: 'by' should be 'loss' or 'sampler', got {way!r}")
    gives_losses = has_sample_losses(policy)
    if way == "loss" and not gives_losses:
        raise DataError(f"the policy '{name_of(policy)}' gives no loss for each sample, so it cannot be weighted by it; use by='sampler'")
    return way or ("loss" if gives_losses else "sampler")


def innermost(policy: Any) -> Any:
    """Returns the policy inside the wrappers of torch (several processes) and PEFT."""
    while True:
        if isinstance(getattr(policy, "module", None), torch.nn.Module):
            policy = policy.module
        elif callable(getattr(policy, "get_base_model", None)):
            policy = policy.get_base_model()
        else:
            return policy


def has_sample_losses(policy: Any) -> bool:
    """Returns whether the policy's forward takes `reduction`, by which LeRobot asks for a loss for each sample.

    DataError if that cannot be known: the policy is no module with a forward of its own.
    """
    forward = getattr(innermost(policy), "forward", None)
    if not callable(forward):
        raise DataError(f"the policy '{name_of(policy)}' is unknown: it has no forward(batch), so its training cannot be weighted")
    return "reduction" in inspect.signature(forward).parameters


def name_of(policy: Any) -> str:
    """Returns the policy's name in LeRobot, such as "act", else its class's."""
    inner = innermost(policy)
    name = getattr(inner, "name", None)
    return name if isinstance(name, str) else type(inner).__name__


def folder_of(root: str | Path | None, repo_id: str | None) -> Path | str:
    """Returns the dataset's folder: `--dataset.root`, else where LeRobot itself keeps the Hub's."""
    if root is not None:
        return root
    if repo_id is None:
        raise DataError("--sample_weighting.type=milepost needs to know the dataset: give --dataset.repo_id or --dataset.root")
    revision = import_module("lerobot.configs.parser").parse_arg("dataset.revision")
    folder: Path = import_module("lerobot.datasets").LeRobotDatasetMetadata(repo_id, revision=revision).root
    return folder


def path_of(path: str | None, dataset: LeRobotDataset) -> Path:
    """Returns the weights file: the one that is named, beside the dataset if it is not there as it stands; else its weights.parquet.

    DataError if there is none.
    """
    if path is not None and path.startswith("hf://"):
        return Path(path)
    candidates = [dataset.root / "weights.parquet"] if path is None else list(dict.fromkeys([Path(path), dataset.root / path]))
    for candidate in candidates:
        if candidate.is_file():
            return candidate
    raise DataError(
        f"there is no weights file {' or '.join(map(str, candidates))}: make one with milepost weigh, and name it with "
        "--sample_weighting.progress_path"
    )


def load_weights(path: Path, dataset: LeRobotDataset) -> SampleWeights:
    """Returns the weights in a file of `milepost weigh`. DataError if it was made for another dataset, or is of another kind."""
    match = match_weights(path, dataset)
    without = int(np.isnan(match.weight).sum())
    if without and not match.is_identified:
        rows = len(match.weight)
        raise DataError(
            f"{path} has weights for {rows - without} of the {count_noun(rows, 'frame')} of {dataset.name}: it was made for another dataset"
        )
    for warning in match.warnings:
        log.warning("%s", warning)
    weights = SampleWeights.load(match.path)
    if not (np.nan_to_num(match.weight, nan=weights.fallback_weight) > 0).any():
        raise DataError(f"{path} has no weight above 0, so nothing would be learnt: make it again by milepost weigh with a lower --kappa")
    if without:
        log.warning("%s has no weight for %s, which weigh %g", path, count_noun(without, "frame"), weights.fallback_weight)
    return weights


class MilepostWeighter(SampleWeighter):
    """Weights by `batch["index"]`, as LeRobot's training loop asks for them. policy: whose losses are weighted."""

    def __init__(self, weights: SampleWeights, device: Any, policy: Any) -> None:
        self.weights, self.device = weights, device
        self._scale = 1.0
        replace(innermost(policy), "forward", self._scaled(innermost(policy).forward, name_of(policy)))

    def compute_batch_weights(self, batch: Mapping[str, Any]) -> tuple[Tensor, dict[str, float]]:
        """Returns (weights (B,), numbers to log). DataError if the batch has no index."""
        if "index" not in batch:
            raise DataError("the batch has no 'index' to look weights up by, which LeRobot's datasets have")
        weight = self.weights[torch.as_tensor(batch["index"]).flatten()].to(self.device)
        numbers = {k: v for k, v in self.weights.metrics(weight).items() if k.startswith("sample_weight_")}
        group, own = current_process_group(), weight.sum()
        whole = group.all_reduce(own.clone())
        self._scale = float(group.world_size * (own + EPSILON) / (whole + EPSILON)) if group.world_size > 1 else 1.0
        return weight, {name.removeprefix("sample_weight_"): number for name, number in numbers.items()}

    def get_stats(self) -> dict[str, Any]:
        """Returns the statistics of the whole dataset."""
        return self.weights.get_stats()

    def _scaled(self, forward: Callable[..., Any], policy: str) -> Callable[..., Any]:
        """Returns the policy's forward. Its losses by sample are checked, and scaled to their part of the whole batch of all processes."""

        def scaled(batch: Mapping[str, Any], *arguments: Any, **options: Any) -> Any:
            result = forward(batch, *arguments, **options)
            if options.get("reduction") != "none":
                return result
            loss, numbers = result
            if loss.shape != (len(batch["index"]),):
                size = len(batch["index"])
                raise DataError(f"the policy '{policy}' gave losses {tuple(loss.shape)} for {size} samples; use extra_params by='sampler'")
            return loss * self._scale, numbers

        return scaled
