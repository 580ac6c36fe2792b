"""A training loop of a page that uses weights as docs/weights.md says: what `lerobot-train` with the plugin must equal."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import draccus
import numpy as np
import torch
from lerobot.configs.train import TrainPipelineConfig
from lerobot.datasets import EpisodeAwareSampler
from lerobot.datasets.factory import make_train_eval_datasets
from lerobot.policies import make_policy, make_pre_post_processors
from safetensors.torch import load_file
from torch.utils.data import DataLoader

from milepost import SampleWeights, WeightedSampler, weighted_mean
from record import make_smolvla_steady


def plain_losses(options: list[str], weights: SampleWeights, start: Path, *, by: str) -> tuple[list[float], list[list[int]]]:
    """Returns every step's loss and rows. by: "loss" weighs losses, "sampler" draws frames. start: the weights to begin with."""
    config = draccus.parse(TrainPipelineConfig, args=options)
    dataset, _ = make_train_eval_datasets(config)
    make_smolvla_steady()
    policy = make_policy(cfg=config.policy, ds_meta=dataset.meta)
    policy.load_state_dict(load_file(start))
    before, _ = make_pre_post_processors(policy_cfg=config.policy, pretrained_path=None, dataset_stats=dataset.meta.stats)
    preset = config.policy.get_optimizer_preset()
    optimizer, schedule = preset.build(policy.get_optim_params()), config.policy.get_scheduler_preset()
    scheduler = schedule.build(optimizer, config.steps) if schedule is not None else None
    loader = iter(DataLoader(dataset, batch_size=config.batch_size, sampler=sampler(dataset, weights, config, by)))
    losses, rows = [], []
    policy.train()
    for _ in range(config.steps):
        batch = prepared(next(loader), dataset.meta.camera_keys, before)
        if by == "loss":
            loss = weighted_mean(policy.forward(batch, reduction="none")[0], weights[batch["index"]])
        else:
            loss = policy.forward(batch)[0]
        loss.backward()
        torch.nn.utils.clip_grad_norm_(policy.parameters(), preset.grad_clip_norm)
        optimizer.step()
        optimizer.zero_grad()
        if scheduler is not None:
            scheduler.step()
        losses.append(loss.item())
        rows.append(batch["index"].flatten().tolist())
    return losses, rows


def sampler(dataset: Any, weights: SampleWeights, config: TrainPipelineConfig, by: str) -> Any:
    """Returns LeRobot's order of frames, or milepost's draws."""
    if by == "sampler":
        return WeightedSampler(weights[np.arange(dataset.num_frames)], seed=config.seed)
    episodes = dataset.meta.episodes
    return EpisodeAwareSampler(episodes["dataset_from_index"], episodes["dataset_to_index"], shuffle=True, seed=config.seed)


def prepared(batch: dict[str, Any], cameras: list[str], before: Any) -> dict[str, Any]:
    """Returns a batch as the policy takes it."""
    floats = {camera: batch[camera].float() / 255 for camera in cameras if batch[camera].dtype == torch.uint8}
    return before({**batch, **floats})
