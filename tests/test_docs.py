"""What the pages show, runs: their Python, block after block, with the tiny VLM and a dataset of the tests in the places of real ones."""

import re
from functools import partial
from pathlib import Path

import numpy as np
import pytest

import milepost
from milepost.models import train
from milepost.testing import dot_episodes, write_dots

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


@pytest.mark.parametrize("page", ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md"])
def test_files_that_a_page_names_exist(page: str) -> None:
    root = README.parent
    named = set(re.findall(r"`((?:[a-z_]+/)+[a-z_]+\.(?:py|md|js|html|pyi))`", (root / page).read_text()))
    assert named or page == "CONTRIBUTING.md"
    there = [path.as_posix() for path in root.rglob("*") if path.suffix and ".venv" not in path.as_posix()]
    assert not [name for name in named if not any(path.endswith(f"/{name}") for path in there)]
