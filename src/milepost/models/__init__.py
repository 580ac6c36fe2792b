"""The reward models by name: a plain dict, name -> (config, class). To add one, copy elapsed.py and add its line here."""

from __future__ import annotations

import json
from pathlib import Path

from milepost.models.elapsed import ElapsedConfig, ElapsedModel
from milepost.models.sarm import SARMConfig, SARMModel
from milepost.types import DataError, RewardModel

MODELS = {
    "elapsed": (ElapsedConfig, ElapsedModel),
    "sarm": (SARMConfig, SARMModel),
}


def load_model(path: str | Path, device: str = "cpu") -> RewardModel:
    """A saved model folder, or the name of a model that needs none ("elapsed"). DataError if it is neither."""
    if str(path) == "elapsed":
        return ElapsedModel()
    folder = Path(path)
    if not (folder / "config.json").is_file():
        raise DataError(f"no model at '{path}': expected a folder with config.json, or 'elapsed'")
    try:
        kind = json.loads((folder / "config.json").read_text()).get("type")
    except json.JSONDecodeError as error:
        raise DataError(f"{folder / 'config.json'} is not valid JSON: {error}") from error
    if kind != "sarm":
        raise DataError(f"{folder / 'config.json'} has type '{kind}'; known types: {', '.join(MODELS)}")
    return SARMModel.from_pretrained(folder, device)
