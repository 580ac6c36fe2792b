"""A model without state statistics takes those of a dataset, says so, and writes whose they were into the labels."""

import dataclasses
import json
import shutil
from pathlib import Path

import pytest

from milepost.cli.label import Args, main
from milepost.core.errors import DataWarning
from milepost.models.options import ModelOptions
from milepost.models.sarm.config import SARMConfig
from milepost.models.sarm.model import SARMModel
from milepost.models.sarm.options import SARMOptions
from milepost.progress.table import read_progress

FIXTURE = Path(__file__).parent / "data" / "dataset_v3"
BARE = SARMConfig(
    hidden_dim=16, num_layers=1, num_heads=2, n_obs_steps=2, max_rewind_steps=0, encoder="pixels",
    image_dim=4, text_dim=4, state_stats_from="",
)  # fmt: skip


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    return Path(shutil.copytree(FIXTURE, tmp_path / "nails", copy_function=shutil.copyfile))


def config_of(path: Path) -> dict:
    return json.loads(read_progress(path).metadata["milepost.config"])


def test_the_datasets_own_with_a_warning(dataset: Path, tmp_path: Path) -> None:
    SARMModel(BARE).save_pretrained(tmp_path / "model")
    with pytest.warns(DataWarning, match="no state statistics: taking those of nails"):
        assert main(Args(str(dataset), (str(tmp_path / "model"),), episodes="4", device="cpu")) == 0
    config = config_of(dataset / "sarm_progress.parquet")
    assert config["state_stats_from"] == "nails/meta/stats.json"
    stats = json.loads((dataset / "meta" / "stats.json").read_text())["observation.state"]
    assert config["state_mean"] == stats["mean"]


def test_another_datasets_if_asked(dataset: Path, tmp_path: Path, recwarn: pytest.WarningsRecorder) -> None:
    SARMModel(BARE).save_pretrained(tmp_path / "model")
    stats = ModelOptions(sarm=SARMOptions(state_stats=str(FIXTURE)))
    assert main(Args(str(dataset), (str(tmp_path / "model"),), episodes="4", device="cpu", model_options=stats)) == 0
    assert not [one for one in recwarn if issubclass(one.category, DataWarning)]
    assert config_of(dataset / "sarm_progress.parquet")["state_stats_from"] == "dataset_v3/meta/stats.json"


def test_a_model_with_its_own_keeps_them(dataset: Path, tmp_path: Path) -> None:
    own = dataclasses.replace(BARE, state_mean=(0.0,) * 7, state_std=(1.0,) * 7, state_stats_from="training episodes")
    SARMModel(own).save_pretrained(tmp_path / "model")
    assert main(Args(str(dataset), (str(tmp_path / "model"),), episodes="4", device="cpu")) == 0
    assert config_of(dataset / "sarm_progress.parquet")["state_stats_from"] == "training episodes"
