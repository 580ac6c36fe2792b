"""A model without state statistics takes those of a dataset, says so, and writes whose they were into the labels."""

import dataclasses
import json
import shutil
from pathlib import Path

import pytest

from milepost.commands.label import Args, main
from milepost.models.sarm import SARMConfig, SARMModel
from milepost.progress_table import read_progress

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


def test_the_datasets_own_with_a_warning(dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    SARMModel(BARE).save_pretrained(tmp_path / "model")
    assert main(Args(str(dataset), str(tmp_path / "model"), episodes="4", device="cpu")) == 0
    assert "no state statistics: taking those of nails" in " ".join(capsys.readouterr().err.split())
    config = config_of(dataset / "sarm_progress.parquet")
    assert config["state_stats_from"] == "nails/meta/stats.json"
    stats = json.loads((dataset / "meta" / "stats.json").read_text())["observation.state"]
    assert config["state_mean"] == stats["mean"]


def test_another_datasets_if_asked(dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    SARMModel(BARE).save_pretrained(tmp_path / "model")
    assert main(Args(str(dataset), str(tmp_path / "model"), episodes="4", device="cpu", state_stats=str(FIXTURE))) == 0
    assert "state statistics" not in capsys.readouterr().err
    assert config_of(dataset / "sarm_progress.parquet")["state_stats_from"] == "dataset_v3/meta/stats.json"


def test_a_model_with_its_own_keeps_them(dataset: Path, tmp_path: Path) -> None:
    own = dataclasses.replace(BARE, state_mean=(0.0,) * 7, state_std=(1.0,) * 7, state_stats_from="training episodes")
    SARMModel(own).save_pretrained(tmp_path / "model")
    assert main(Args(str(dataset), str(tmp_path / "model"), episodes="4", device="cpu")) == 0
    assert config_of(dataset / "sarm_progress.parquet")["state_stats_from"] == "training episodes"
