"""Models that do not say what they are: the command line tells them apart by their code and files, and never mixes two of them."""

from pathlib import Path

import pytest
from test_third_party import dataset  # noqa: F401 (a fixture)

import milepost
from milepost.cli.entry import main
from milepost.models.source import source_hash
from packages import install

LEVEL = """
import numpy as np
from milepost.core import Progress

class Model:
    def predict(self, episode):
        return Progress(episode.index, np.full(episode.length, {value}, np.float32))

    @classmethod
    def from_pretrained(cls, folder):
        return cls()
"""


def test_changed_code_is_another_model(
    tmp_path: Path, dataset: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]  # noqa: F811
) -> None:  # fmt: skip
    words = ["label", str(dataset), "--model", "level", "--output-path", str(tmp_path / "p.parquet")]
    with monkeypatch.context() as first:
        install(tmp_path / "one", first, LEVEL.format(value=0.25), name="level", offer="Model")
        assert main(words) == 0
        assert main(words) == 0
        assert "nothing to do" in capsys.readouterr().err
    install(tmp_path / "two", monkeypatch, LEVEL.format(value=0.75), name="level", offer="Model")
    assert main(words) == 2
    assert "was made with another source; use --overwrite" in capsys.readouterr().err
    assert main([*words, "--overwrite"]) == 0
    assert set(milepost.read_progress(tmp_path / "p.parquet").main.value.tolist()) == {0.75}


def test_other_files_in_its_folder_are_another_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(tmp_path / "site", monkeypatch, LEVEL.format(value=0.5), name="level", offer="Model")
    model = milepost.load_model("level")
    (tmp_path / "model").mkdir()
    empty = source_hash(model, tmp_path / "model")
    (tmp_path / "model" / "weights.bin").write_bytes(b"1")
    one = source_hash(model, tmp_path / "model")
    (tmp_path / "model" / "weights.bin").write_bytes(b"2")
    assert len({empty, one, source_hash(model, tmp_path / "model")}) == 3
    assert source_hash(model, tmp_path / "nowhere") == empty


def test_a_model_of_a_notebook_has_no_source(tmp_path: Path) -> None:
    model = type("Model", (), {"__module__": "__main__", "predict": lambda self, episode: None})()
    assert source_hash(model, tmp_path) == ""
