"""What the pages show, runs: their Python, block after block, with the tiny VLM and a dataset of the tests in the places of real ones."""

import re
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

import milepost
from milepost.cli.entry import main
from milepost.models import train
from milepost.testing import CAMERA, dot_episodes, tiny_sarm, write_dots
from packages import install

README = Path(__file__).parents[1] / "README.md"
DOCS = README.parent / "docs"
DATA = Path(__file__).parent / "data"
STANDS_FOR = {
    "Qwen/Qwen3-VL-8B-Instruct": str(DATA / "qwen3vl_tiny"),
    'device="cuda"': 'device="cpu"',
    "fps=30)": "fps=30.0)",  # the tests' own checks of types are stricter than Python
    "path/or/hub-id": str(DATA / "dataset_v3"),
}


def test_readme(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The front page's Python, from a dataset to a page that plays, with two steps of training."""
    monkeypatch.chdir(tmp_path)
    write_dots("dots", dot_episodes(6, failing=2))
    monkeypatch.setattr(milepost, "train", partial(train, steps=2))
    (block,) = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)
    names: dict = {"image": np.zeros((32, 32, 3), np.uint8), "state": np.zeros(2, np.float32)}
    names |= {"loss_per_sample": np.ones(3, np.float32), "weight_per_sample": np.ones(3, np.float32)}
    exec(compile(block.replace("path/or/hub-id", "dots").replace("fps=30)", "fps=10.0)"), "README.md", "exec"), names)
    assert names["images"].shape == (3, 32, 32, 3)
    assert len(names["weights"]) == 171
    assert set(names["summaries"]) == {"sarm", "elapsed"}
    assert {"episode.mp4", "review.html", "sarm"} <= {path.name for path in tmp_path.iterdir()}


def blocks(page: str) -> list[str]:
    return re.findall(r"```python\n(.*?)```", (DOCS / page).read_text(), re.DOTALL)


def test_topreward(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict = {"frames": np.load(DATA / "qwen3vl_tiny" / "clips.npz")["wide"]}
    for block in blocks("topreward.md"):
        for real, ours in STANDS_FOR.items():
            block = block.replace(real, ours)
        exec(compile(block, "topreward.md", "exec"), names)
    assert names["progress"].shape == (9,)
    assert names["reward"].shape == (1,)
    assert names["said"].value.shape == (148,)
    assert not np.allclose(names["right"].main.signals["logprob"].values, names["wrong"].main.signals["logprob"].values, equal_nan=True)
    assert names["reloaded"].config.vlm_name == STANDS_FOR["Qwen/Qwen3-VL-8B-Instruct"]
    assert (tmp_path / "topreward-qwen3vl-8b" / "config.json").stat().st_size < 1100


def test_every_page_with_python_is_run_by_a_test() -> None:
    pages = {path.name for path in DOCS.glob("*.md") if "```python" in path.read_text()}
    assert pages == {"own_model.md", "sarm.md", "testing.md", "topreward.md", "weights.md"}


def test_sarm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """docs/sarm.md's Python, on the world of dots and a tiny model in the place of a checkpoint."""
    monkeypatch.chdir(tmp_path)
    write_dots("dots", dot_episodes(3))
    model = tiny_sarm()
    model.save_pretrained("sarm")
    windows = torch.zeros(2, model.config.width, 32, 32, 3, dtype=torch.uint8)
    names: dict = {"image": np.zeros((32, 32, 3), np.uint8), "state": np.zeros(2, np.float32), "stats": None}
    names |= {"batch": {CAMERA: windows, "observation.state": torch.zeros(2, model.config.width, 2), "task": ["visit", "visit"]}}
    stands_for = {"path/or/hub-id": "dots", "lerobot-user/their-sarm": "sarm", "fps=30)": "fps=10.0)"}
    for block in blocks("sarm.md"):
        for real, ours in stands_for.items():
            block = block.replace(real, ours)
        exec(compile(block, "sarm.md", "exec"), names)
    assert names["progress"].value.shape == (names["episode"].length,)
    assert 0 <= names["now"].progress <= 1
    assert names["reward"].shape == (2,)


def test_own_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """docs/own_model.md: its Python runs, and its two ways to offer the model, as an installed package would."""
    monkeypatch.chdir(tmp_path)
    write_dots("dots", dot_episodes(3))
    code = [block.replace("path/or/hub-id", "dots") for block in blocks("own_model.md")]
    names: dict = {"__name__": "own_model"}
    for block in code:
        exec(compile(block, "own_model.md", "exec"), names)
    assert names["table"].main.signals["level"].unit == "grey levels"
    package = tmp_path / "site"
    install(package, monkeypatch, "from __future__ import annotations\n" + code[0] + code[3])
    assert main(["label", "dots", "--model", "brightness", "--brightness.gain", "2"]) == 0
    names["MODEL"].bare(gain=0.5).save_pretrained(tmp_path / "saved")
    assert main(["plot", "dots", "--model", "saved", "--output-dir", "plots"]) == 0


@pytest.mark.parametrize("page", ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md"])
def test_files_that_a_page_names_exist(page: str) -> None:
    root = README.parent
    named = set(re.findall(r"`((?:[a-z_]+/)+[a-z_]+\.(?:py|md|js|html|pyi))`", (root / page).read_text()))
    assert named or page == "CONTRIBUTING.md"
    there = [path.as_posix() for path in root.rglob("*") if path.suffix and ".venv" not in path.as_posix()]
    assert not [name for name in named if not any(path.endswith(f"/{name}") for path in there)]
