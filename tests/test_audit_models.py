"""`milepost audit` on every zero-shot model, with tiny random weights: it runs, and calls none of them a reward."""

import json
from pathlib import Path

import pytest

from milepost.core.files import read_json_object
from milepost.metrics.verdicts import VERDICTS
from milepost.models.gvl.config import GVLConfig
from milepost.models.gvl.model import GVLModel
from milepost.testing import dot_episodes, write_dots
from models.test_contract import VLM, robometer_folder
from test_cli import milepost as command

CONTROLS = ("frozen_first", "shuffled")


@pytest.fixture(scope="module")
def dots(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("audit") / "dots"
    write_dots(root, dot_episodes(8, failing=2))
    return root


@pytest.mark.parametrize("name", ["topreward", "roboreward", "robometer", "gvl"])
def test_random_weights_are_no_reward(name: str, dots: Path, tmp_path: Path) -> None:
    if name == "gvl":  # random weights go on writing until they are stopped
        GVLModel(GVLConfig(vlm_name=str(VLM), max_frames=3, max_answer_tokens=2)).save_pretrained(tmp_path / "gvl")
        words = ("--model", tmp_path / "gvl")
    else:
        vlm = robometer_folder() if name == "robometer" else VLM
        words = ("--model", name, "--vlm-name", vlm, "--fps", 3, "--num-prefixes", 4)
    run = command(
        "audit", dots, *words, "--controls", *CONTROLS, "--output-dir", tmp_path / "audit", "--json",
        "--device", "cpu",
    )  # fmt: skip
    assert run.returncode == 1, run.stderr
    record = json.loads(run.stdout)
    assert record["verdict"] in VERDICTS
    assert record["verdict"] != "reward"
    assert record["reason"]
    assert record == read_json_object(tmp_path / "audit" / "audit.json") | record
    if name == "gvl":  # random weights write no numbers: no curve is known
        assert record["verdict"] == "cannot be said"
    else:
        assert record["rows"]["rise"]["episodes"] == 6  # the successes
        assert record["missing"]["other_task"]
    assert (tmp_path / "audit" / "audit.png").stat().st_size > 10_000
