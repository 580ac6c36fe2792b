"""`milepost.train`, the whole of training in one call: presets and changes to them, refusals, and a run that goes on."""

import dataclasses
import json
from pathlib import Path

import pytest

import milepost
from milepost import metrics
from milepost.cli.entry import main
from milepost.core import DataError, Tick, quiet
from milepost.datasets import LeRobotDataset, open_dataset
from milepost.models.sarm.settings import plan
from milepost.models.training.config import TrainConfig
from milepost.progress import AuditRun, audit
from milepost.testing import dot_episodes, tiny_sarm, write_dots


@pytest.fixture
def dots(tmp_path: Path) -> LeRobotDataset:
    write_dots(tmp_path / "dots", dot_episodes(6, failing=2))
    return open_dataset(tmp_path / "dots")


def interrupted(*arguments: object, **options: object) -> None:
    raise KeyboardInterrupt


def test_changes_of_a_preset_leave_its_other_values(dots: LeRobotDataset) -> None:
    made = plan(dots, "small", steps=7, annotation_mode="sparse_only", device="cpu", lr=None)
    assert (made.train.steps, made.train.lr, made.train.weight_decay) == (7, 1e-3, 1e-2)
    assert (made.config.annotation_mode, made.config.hidden_dim, made.config.encoder) == ("sparse_only", 96, "pixels")
    assert made.train.validation is None
    assert plan(dots, "small", window="centred").config.attention == "lerobot"
    assert plan(dots, "paper", encoder="pixels").config.image_dim == 64


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"preset": "large"}, "no preset 'large'; choose from paper, small"),
        ({"preset": "small", "stpes": 4}, "training has no setting 'stpes'; the settings are: .*steps"),
        ({"preset": "small", "training": TrainConfig(steps=2)}, "config= and training= would replace all values of the preset"),
        ({"training": TrainConfig(steps=2), "lr": 1e-3}, "give lr inside config= or training="),
        ({"preset": "small", "steps": 4, "epochs": 1.0}, "--steps 4 and --epochs 1 contradict each other"),
        ({"preset": "small", "image_key": "observation.images.nose"}, "observation.images.nose"),
    ],
)
def test_wrong_settings_are_refused_before_anything_is_written(tmp_path: Path, dots: LeRobotDataset, settings: dict, words: str) -> None:
    with pytest.raises(DataError, match=words):
        milepost.train(dots, tmp_path / "model", **settings)
    assert not (tmp_path / "model").exists()


def test_in_python_a_run_between_weights_and_card_goes_on(tmp_path: Path, dots: LeRobotDataset, monkeypatch: pytest.MonkeyPatch) -> None:
    """The steps are done and the card is not: the same call writes it, and is refused only then."""
    settings = {"preset": "small", "steps": 2, "batch_size": 4, "keep_features": False}
    heard: list[str] = []

    def hear(name: str) -> Tick:
        heard.append(name)
        return quiet

    with monkeypatch.context() as patch:
        patch.setattr("milepost.models.sarm.train.save_card", interrupted)
        with pytest.raises(KeyboardInterrupt):
            milepost.train(dots, tmp_path / "model", **settings)
    weights = (tmp_path / "model" / "model.safetensors").read_bytes()
    result = milepost.train(dots, tmp_path / "model", on_stage=hear, **settings)
    assert (tmp_path / "model" / "README.md").exists()
    assert (tmp_path / "model" / "model.safetensors").read_bytes() == weights
    assert set(heard) == {"read and encode frames", "train", "evaluate held-out"}
    assert set(result.summaries) == {"sarm", "elapsed"}
    assert result.audit is None  # too few held-out episodes for a verdict
    assert "Not audited: fewer than 5 held-out episodes" in (tmp_path / "model" / "README.md").read_text()
    with pytest.raises(DataError, match=r"a trained model in .* already; .* overwrite=True"):
        milepost.train(dots, tmp_path / "model", **settings)


def test_augmentation_is_a_setting_of_every_encoder(dots: LeRobotDataset) -> None:
    assert plan(dots, "small", augmentation=0.5).config.augmentation == 0.5
    assert plan(dots, "small").config.augmentation == 0
    assert plan(dots, "paper", augmentation=0.5).config.augmentation == 0.5


def test_a_card_says_whether_the_curves_follow_what_is_seen_and_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    def with_reason(*args: object, **options: object) -> AuditRun:
        run = audit(*args, **options)
        return dataclasses.replace(run, audit=dataclasses.replace(run.audit, reason="the rise is 0.01"))

    monkeypatch.setattr("milepost.models.training.evaluation.audit", with_reason)
    write_dots(tmp_path / "many", dot_episodes(16, failing=2))
    quick = ["--preset", "small", "--steps", "2", "--batch-size", "4", "--no-cache", "--holdout", "0.5", "--device", "cpu"]
    assert main(["train", str(tmp_path / "many"), "--output-dir", str(tmp_path / "model"), *quick]) == 0
    card = (tmp_path / "model" / "README.md").read_text()
    assert "## A reward, or a clock?" in card
    verdict = json.loads((tmp_path / "model" / "evaluation.json").read_text())["audit"]
    words = f"{metrics.VERDICTS[verdict]} (the rise is 0.01)"
    assert f"**{verdict}**, {words}." in card
    assert f"a reward, or a clock? on held-out episodes: {verdict}, {words}" in " ".join(capsys.readouterr().out.split())


def test_a_model_whose_training_was_interrupted_is_said_to_be_one(tmp_path: Path) -> None:
    tiny_sarm().save_pretrained(tmp_path / "sarm")
    (tmp_path / "sarm" / "run.json").write_text("{}")
    with pytest.warns(UserWarning, match="was interrupted, and its model is that of the last save"):
        milepost.load_model(tmp_path / "sarm")
