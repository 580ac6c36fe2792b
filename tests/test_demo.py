"""The whole journey, small: every file it promises, nothing done twice, an interruption gone on from, a report that needs no network."""

import base64
import json
import re
from pathlib import Path

import numpy as np
import pytest

from milepost.cli.demo import show
from milepost.cli.journey import DemoConfig, Journey
from milepost.core.errors import DataError
from milepost.datasets.reader import open_dataset
from milepost.datasets.validation import validate
from milepost.progress.table import read_progress
from milepost.sim.behaviours import FAILURES, SUCCESSES, episodes_by_kind
from milepost.sim.scene import NoRendererError, require_renderer

SMALL = DemoConfig(tasks=("drawer-open-v3", "assembly-v3"), successes=8, failures=4, holdout=0.5, steps=12)


class Steps:
    """Remembers which bars were drawn; can interrupt one of them."""

    def __init__(self, interrupt: str | None = None) -> None:
        self.names: list[str] = []
        self.interrupt = interrupt

    def __call__(self, name: str):
        def tick(done: int, total: int) -> None:
            self.names.append(name)
            if name == self.interrupt and done:
                raise KeyboardInterrupt

        return tick


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A demo, interrupted in the middle of training and of labelling, and gone on with."""
    try:
        require_renderer()
    except NoRendererError as error:
        pytest.skip(str(error))
    folder = tmp_path_factory.mktemp("demo")
    for interrupt in ("sarm: train", "label: sarm_single_stage"):
        with pytest.raises(KeyboardInterrupt):
            Journey(folder, SMALL, Steps(interrupt), workers=1).run()
    steps = Steps()
    Journey(folder, SMALL, steps, workers=1).run()
    assert "drawing" not in steps.names
    assert "sarm: train" not in steps.names
    assert "label: sarm" not in steps.names
    return folder


def test_every_file_is_there(folder: Path) -> None:
    names = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    models = {
        f"models/{m}/{f}" for m in ("sarm", "sarm_single_stage") for f in ("config.json", "model.safetensors", "README.md", "log.jsonl")
    }
    labels = {f"dataset/{m}_progress.parquet" for m in ("sarm", "sarm_single_stage", "elapsed")}
    assert models | labels | {"report.html", "dataset/weights.parquet", "dataset/meta/info.json"} <= names
    assert not [name for name in names if "partial" in name or name.startswith("cache") or name.endswith(".pt")]


def test_the_dataset_is_healthy_and_labelled_throughout(folder: Path) -> None:
    assert validate(folder / "dataset").healthy
    dataset = open_dataset(folder / "dataset")
    assert len(dataset) == 24
    progress = read_progress(folder / "dataset" / "sarm_progress.parquet")
    assert len(progress.index) == dataset.total_frames
    assert not np.isnan(progress.values()).any()
    assert {e.facts["kind"] for e in dataset} == set(SUCCESSES) | set(FAILURES)


def test_held_out_scenes_were_never_trained_on(folder: Path) -> None:
    dataset = open_dataset(folder / "dataset")
    scenes = {e.index: (e.task, e.facts["scene"]) for e in dataset}
    splits = [json.loads((folder / "models" / m / "evaluation.json").read_text()) for m in ("sarm", "sarm_single_stage")]
    assert splits[0]["held_out"] == splits[1]["held_out"]
    for split in splits:
        assert not {scenes[i] for i in split["train_episodes"]} & {scenes[i] for i in split["held_out"]}


def test_the_report_opens_offline_and_plays_an_episode_of_each_kind(folder: Path) -> None:
    page = (folder / "report.html").read_text()
    assert not re.search(r"(src|href)=[\"']?(https?:)?//", page)
    assert "connect-src" not in page
    assert "default-src 'none'" in page
    for words in ("Held-out demonstrations", "Where failures end", "Wrong instruction", "Sample weights", "pull the drawer open"):
        assert words in page
    held = json.loads((folder / "models" / "sarm" / "evaluation.json").read_text())["held_out"]
    embedded = json.loads(re.search(r'id="embedded">(.*?)</script>', page, re.DOTALL)[1])
    dataset = open_dataset(folder / "dataset")
    shown = {number: dataset.episode(number) for number in embedded["episodes"]["index"]}
    assert set(shown) <= set(held)
    assert {(e.task, e.facts["kind"]) for e in shown.values()} == {(e.task, e.facts["kind"]) for e in map(dataset.episode, held)}
    assert {model["name"] for model in embedded["dataset"]["models"]} == {"sarm", "sarm_single_stage", "elapsed"}
    for number in shown:
        assert f'href="#/episode/{number}"' in page
        for camera in dataset.cameras:
            film = re.search(rf'id="embedded:{number}/{re.escape(camera)}">([^<]*)</script>', page)[1]
            assert base64.b64decode(film)[4:8] == b"ftyp"


def test_other_settings_are_not_mixed_in(folder: Path) -> None:
    with pytest.raises(DataError, match="other settings"):
        Journey(folder, DemoConfig(seed=5), Steps())


def test_the_last_lines_say_how_to_open_the_report_and_what_to_type_next(folder: Path, capsys: pytest.CaptureFixture) -> None:
    show(Journey(folder, SMALL, Steps(), workers=1).run())
    *_, report, opening, following = capsys.readouterr().out.splitlines()
    assert report == f"report: {folder / 'report.html'}"
    assert opening.endswith(f"python -m webbrowser {(folder / 'report.html').as_uri()}")
    assert following == "next, with a dataset of your own: milepost info DATASET"
    page = (folder / "report.html").read_text()
    assert "VOC (value-order correlation) is the rank correlation" in page
    assert "time before this page" in page


def test_episodes_are_shared_out_evenly() -> None:
    counts = episodes_by_kind(10, 7)
    assert sum(counts[kind] for kind in SUCCESSES) == 10
    assert sum(counts[kind] for kind in FAILURES) == 7
    assert max(counts.values()) - min(counts.values()) <= 1
