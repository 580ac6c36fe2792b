"""LeRobot's reward classifier: its files give the numbers of its layers, and what is not read is refused by file and reason."""

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import load_file, save_file

import milepost
from classifiers import Reference
from milepost.cli.entry import main
from milepost.core.errors import DataError, DataWarning
from milepost.models.classifier.model import RewardClassifier
from milepost.testing import CAMERA, check_reward_model, dot_episodes, write_dots

SUCCESS = "milepost train DATASET --model success --output-dir FOLDER"


@pytest.mark.parametrize("transformer", [False, True])
def test_it_gives_the_numbers_of_its_layers(tmp_path: Path, transformer: bool) -> None:
    reference, episode = Reference(transformer=transformer), dot_episodes(1)[0]
    model = milepost.load_model(reference.write(tmp_path / "classifier"))
    assert isinstance(model, RewardClassifier)
    expected = reference.probability({CAMERA: episode.camera(CAMERA)[np.arange(episode.length)]})
    curve = model.predict(episode).main
    np.testing.assert_allclose(curve.value, expected, atol=1e-6)
    assert np.ptp(expected) > 1e-4
    np.testing.assert_array_equal(curve.signals["success"].values, curve.value)
    assert check_reward_model(model, episode) == []
    model.reset(task=episode.task, fps=episode.fps)
    steps = [model.step({CAMERA: episode.camera(CAMERA)[np.array([t])][0]}).progress for t in range(5)]
    np.testing.assert_allclose(steps, expected[:5], atol=1e-6)


def test_two_cameras_share_an_encoder(tmp_path: Path) -> None:
    side = "observation.images.side"
    reference, images = Reference(cameras=(CAMERA, side)), dot_episodes(1)[0].camera(CAMERA)[np.arange(4)]
    model = RewardClassifier.from_pretrained(reference.write(tmp_path / "two"))
    both = {CAMERA: images, side: images[::-1].copy()}
    np.testing.assert_allclose(model.probability(both), reference.probability(both), atol=1e-6)
    weights = load_file(tmp_path / "two" / "model.safetensors")
    first = {name.replace("encoders.observation_images_top.0.", "encoder."): weight for name, weight in weights.items()}
    save_file(first, tmp_path / "two" / "model.safetensors")  # a file may name the shared encoder otherwise
    assert RewardClassifier.from_pretrained(tmp_path / "two").weights_hash() == model.weights_hash()


def test_label_on_the_command_line(tmp_path: Path) -> None:
    Reference().write(tmp_path / "classifier")
    write_dots(tmp_path / "dots", dot_episodes(3, failing=1))
    with pytest.warns(DataWarning, match="get no gradient"):
        assert main(["label", str(tmp_path / "dots"), "--model", str(tmp_path / "classifier")]) == 0
    assert set(milepost.read_progress(tmp_path / "dots" / "reward_classifier_progress.parquet").main.signals) == {"success"}


# What is refused


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"model_name": "lerobot/resnet10"}, f"config.json: .* the encoder 'lerobot/resnet10', which is a program on the Hub.*{SUCCESS}"),
        ({"model_name": "nowhere/at-all"}, f"config.json: .* the encoder 'nowhere/at-all', which cannot be made here.*{SUCCESS}"),
        ({"num_classes": 3}, "config.json has num_classes 3; only a classifier of two"),
        ({"num_cameras": 2}, "config.json has 1 cameras? in input_features and num_cameras 2"),
        ({"input_features": {}}, "config.json has 0 cameras in input_features"),
        ({"model_type": "mlp"}, "config.json has model_type 'mlp'"),
        ({"hidden_dim": -1}, "'hidden_dim' should be a whole number"),
        ({"hidden_dim": 5}, "its weights do not fit its config"),
    ],
)
def test_another_architecture_is_refused_by_file_and_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changes: dict[str, object], words: str
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(DataError, match=words):
        milepost.load_model(Reference().write(tmp_path / "classifier", **changes))


def test_an_encoder_with_code_of_its_own_is_not_run(tmp_path: Path) -> None:
    folder = Reference().write(tmp_path / "classifier")
    about = folder / "encoder" / "config.json"
    about.write_text(json.dumps({"model_type": "own", "auto_map": {"AutoConfig": "own.Config", "AutoModel": "own.Model"}}))
    (folder / "encoder" / "own.py").write_text("raise SystemExit('it was run')")
    with pytest.raises(DataError, match="which cannot be made here"):
        milepost.load_model(folder)


def test_files_that_are_missing_or_wrong_are_named(tmp_path: Path) -> None:
    folder = Reference().write(tmp_path / "classifier")
    weights = load_file(folder / "model.safetensors")
    save_file({name: weight for name, weight in weights.items() if "kernel" not in name}, folder / "model.safetensors")
    with pytest.raises(DataError, match="kernel"):
        milepost.load_model(folder)
    save_file({**weights, "extra.weight": weights["classifier_head.0.bias"].clone()}, folder / "model.safetensors")
    with pytest.raises(DataError, match=r"extra\.weight"):
        milepost.load_model(folder)
    (folder / "classifier_preprocessor.json").unlink()
    with pytest.raises(DataError, match=r"classifier_preprocessor\.json is missing"):
        milepost.load_model(folder)


def test_images_of_another_size_are_refused(tmp_path: Path) -> None:
    model = RewardClassifier.from_pretrained(Reference().write(tmp_path / "classifier"))
    with pytest.raises(DataError, match=r"makes 4 x 4 places; of 64 x 48 pixels, from camera .* it makes 8 x 6"):
        model.probability({CAMERA: np.zeros((1, 64, 48, 3), dtype=np.uint8)})


def test_it_is_not_trained_here(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "nowhere", "--model", "reward_classifier", "--output-dir", str(tmp_path / "run")]) == 2
    assert SUCCESS in " ".join(capsys.readouterr().err.split())
