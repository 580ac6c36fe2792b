"""What the pages show, runs: their Python, block after block, with the tiny VLM and a dataset of the tests in the places of real ones."""

import re
from pathlib import Path

import numpy as np

DOCS = Path(__file__).parents[1] / "docs"
DATA = Path(__file__).parent / "data"
STANDS_FOR = {
    "Qwen/Qwen3-VL-8B-Instruct": str(DATA / "qwen3vl_tiny"),
    'device="cuda"': 'device="cpu"',
    "fps=30)": "fps=30.0)",  # the tests' own checks of types are stricter than Python
    "path/or/hub-id": str(DATA / "dataset_v3"),
}


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
