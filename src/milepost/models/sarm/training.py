"""SARM trained on a dataset in one call: what `milepost train` does, in Python."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from milepost.core import DataError, output_lock
from milepost.datasets import LeRobotDataset
from milepost.encoders import FeatureCache, cache_folder, load_encoder
from milepost.models.sarm.config import SARMConfig
from milepost.models.sarm.train import PRESETS, TrainResult, evaluate_held_out, read_episodes, train_sarm
from milepost.models.training.card import save_card
from milepost.models.training.checkpoints import is_unfinished
from milepost.models.training.config import TrainConfig


def train(
    dataset: LeRobotDataset,
    output_dir: Path | str,
    *,
    preset: str = "paper",
    config: SARMConfig | None = None,
    training: TrainConfig | None = None,
    holdout: float = 0.1,
    keep_features: bool = True,
) -> TrainResult:
    """Trains SARM on a dataset, and saves the model, its card and the table about held-out episodes in `output_dir`.

    preset: "paper", the published sizes, for a GPU; "small", minutes on a CPU. config, training: the model and how it is trained; without
    them those of the preset, with all cameras of the dataset. holdout: the proportion of start scenes that are kept out of training and
    evaluated on. keep_features: keeps what the encoder made of each frame on disk. An interrupted run goes on when the same call is made
    again. DataError if a finished model is in the folder already, or the dataset has no usable episode.

    >>> small = milepost.TrainConfig(steps=2, batch_size=4)
    >>> result = milepost.train(milepost.open_dataset("dots"), "sarm", preset="small", training=small, keep_features=False)
    >>> result.fit_result.steps
    2
    >>> type(milepost.load_model("sarm")).__name__
    'SARMModel'
    """
    folder = Path(output_dir)
    if preset not in PRESETS:
        raise DataError(f"there is no preset '{preset}'; choose from {', '.join(PRESETS)}")
    if config is None:
        cameras = dataset.choose_cameras((), flag="config.image_key")
        config = dataclasses.replace(PRESETS[preset][0], image_key=cameras[0], more_image_keys=cameras[1:])
    training = training or PRESETS[preset][1]
    if (folder / "config.json").exists() and not (training.overwrite or is_unfinished(folder)):
        raise DataError(f"there is a trained model in {folder} already; choose another folder, or TrainConfig(overwrite=True)")
    encoder = load_encoder(config.encoder, device=training.device, text_width=config.text_dim)
    cache = cache_folder() if keep_features else None
    with output_lock(folder):
        features = FeatureCache(cache, dataset.fingerprint, encoder=encoder, half=cache is not None)
        episodes, unreadable = read_episodes(dataset)
        result = train_sarm(
            episodes,
            config,
            training,
            folder=folder,
            stages=dataset.stages,
            holdout=holdout,
            features=features,
            on_stage=lambda name: _silent,
        )
        held_out = [episode for episode in episodes if episode.index in result.held_out]
        summaries = evaluate_held_out(result.model, held_out, on_progress=_silent, seed=training.seed)
        save_card(folder, result, dataset.name, summaries, fingerprint=dataset.fingerprint)
    return dataclasses.replace(result, unreadable={**unreadable, **result.unreadable})


def _silent(done: int, total: int) -> None:
    pass
