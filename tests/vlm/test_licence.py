"""A licence that forbids commercial use is said once; others, and a folder without a card, are not."""

import json
import shutil
import warnings
from pathlib import Path

import pytest

import milepost
from milepost.models.robometer.config import FORMAT
from milepost.testing import tiny_robometer
from milepost.vlm.head_files import load_frame_engine
from milepost.vlm.licence import forbidding_licence, say_licence
from milepost.vlm.loading import load_engine
from models.test_contract import VLM
from test_cli import FIXTURE
from test_cli import milepost as command

CARD = "---\nlicense: {}\ntags:\n- robotics\n---\n# A model\nlicense: cc-by-nc-4.0 is not what this one has\n"


@pytest.mark.parametrize(
    ("licence", "forbids"),
    [
        ("cc-by-nc-4.0", True), ("'cc-by-nc-sa-4.0'", True), ("fair-noncommercial-research-license", True), ("apple-amlr", True),
        ("other\nlicense_name: qwen-research", True), ("apache-2.0", False), ("cc-by-4.0", False), ("mit", False), ("other", False),
    ],
)  # fmt: skip
def test_which_licences_forbid_it(licence: str, forbids: bool, tmp_path: Path) -> None:
    card = tmp_path / "README.md"
    card.write_text(CARD.format(licence))
    assert bool(forbidding_licence(card)) is forbids


def test_a_card_without_a_front_has_none(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("# My model\nlicense: cc-by-nc-4.0\n")
    assert forbidding_licence(tmp_path / "README.md") == ""
    assert forbidding_licence(tmp_path / "none.md") == forbidding_licence(None) == ""


def test_it_is_said_once_in_a_process(tmp_path: Path) -> None:
    """Of a VLM, however often it is loaded, and of one with heads."""
    for folder in (Path(shutil.copytree(VLM, tmp_path / "vlm")), tiny_robometer(tmp_path / "robometer")):
        (folder / "README.md").write_text(CARD.format("cc-by-nc-4.0"))
    with warnings.catch_warnings(record=True) as log:
        warnings.simplefilter("always")
        load_engine(tmp_path / "vlm")
        load_engine(tmp_path / "vlm")
        say_licence("another", tmp_path / "vlm" / "README.md", {})
    assert [str(each.message).partition(" are under")[0] for each in log] == [
        f"the weights of {tmp_path / 'vlm'}",
        "the weights of another",
    ]


def test_a_config_names_a_licence_too(tmp_path: Path) -> None:
    """As LeRobot writes it, of a VLM with heads and of a reward model."""
    folder = tiny_robometer(tmp_path / "robometer", layout="lerobot")
    edited(folder / "config.json", license="cc-by-nc-4.0")
    milepost.make_reward_model(milepost.make_reward_model_config("topreward")).save_pretrained(tmp_path / "plugin")
    edited(tmp_path / "plugin" / "config.json", type="milepost_topreward", license="cc-by-nc-sa-4.0")
    with warnings.catch_warnings(record=True) as log:
        warnings.simplefilter("always")
        for _ in range(2):
            load_frame_engine(folder, layout=FORMAT)
            milepost.load_model(tmp_path / "plugin")
        say_licence("one more", None, {"license": "apache-2.0"})
        say_licence("one more", None, {"license": ["cc-by-nc-4.0"]})
    texts = [str(each.message) for each in log if "licence" in str(each.message)]
    assert len(texts) == 2
    assert all(text.endswith("config.json names it") for text in texts)
    assert str(folder) in texts[0]


def edited(path: Path, **changes: object) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


@pytest.mark.parametrize(("licence", "times"), [("cc-by-nc-4.0", 1), ("apache-2.0", 0)])
def test_the_command_says_it_once_and_not_for_each_episode(licence: str, times: int, tmp_path: Path) -> None:
    folder = tiny_robometer(tmp_path / licence)
    (folder / "README.md").write_text(CARD.format(licence))
    words = ("--episodes", "0-2", "--num-prefixes", 2, "--output-path", tmp_path / "p.parquet", "--device", "cpu")
    with warnings.catch_warnings(record=True) as log:
        warnings.simplefilter("always")
        run = command("label", FIXTURE, "--model", "robometer", "--vlm-name", folder, *words)
    assert run.returncode == 0, run.stderr
    text = run.stderr + "".join(str(each.message) for each in log)
    assert text.count("forbids commercial use") == times


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ('{"model_type": "qwen3_vl"}', ("--model gvl|roboreward|topreward --vlm-name",)),
        ('{"model_type": "qwen3_vl", "architectures": ["RFM"]}', ("--model robometer --vlm-name",)),
        ('{"type": "robometer", "vlm_config": {}, "license": "apache-2.0"}', ("--model robometer --vlm-name",)),
        ('{"model_type": "llama"}', ("'llama' checkpoint and no reward model", "--vlm-name")),
    ],
)
def test_a_bare_checkpoint_as_a_model_says_what_to_type(config: str, words: tuple, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(config)
    run = command("label", FIXTURE, "--model", tmp_path, "--output-path", tmp_path / "p.parquet")
    assert run.returncode == 2
    assert all(word in run.stderr for word in words), run.stderr
