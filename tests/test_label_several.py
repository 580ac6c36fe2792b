"""`label` with several models: one reading, files equal to those of separate runs, each resumed and lost by itself; options and names."""

import json
import shutil
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

import milepost
from milepost.core.errors import DataError, UnreadableError
from milepost.core.images import FrameIndex
from milepost.core.types import ArrayFrames, Episode, Progress
from milepost.datasets.video import VideoFrames
from milepost.models.gvl.config import GVLConfig
from milepost.models.gvl.model import GVLModel
from milepost.models.roboreward.config import RoboRewardConfig
from milepost.models.roboreward.model import RoboRewardModel
from milepost.models.sarm.config import SARMConfig
from milepost.models.sarm.model import SARMModel
from milepost.models.topreward.config import TOPRewardConfig
from milepost.models.topreward.model import TOPRewardModel
from milepost.progress.held import with_shared_images
from milepost.progress.labelling import label, label_several
from milepost.progress.table import read_progress
from milepost.testing import ListDataset, dot_episodes
from models.test_contract import VLM
from test_cli import FIXTURE, assert_refused
from test_cli import milepost as command
from test_label_command import SMALL, STAGES

SOME = ("--episodes", "0,4", "--device", "cpu")


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A folder of each kind of model, with the camera that they look at first."""
    root = tmp_path_factory.mktemp("models")
    SARMModel(SARMConfig(annotation_mode="sparse_only", **SMALL, **{k: v for k, v in STAGES.items() if k[0] == "s"})).save_pretrained(
        root / "sarm"
    )
    TOPRewardModel(TOPRewardConfig(vlm_name=str(VLM))).save_pretrained(root / "topreward")
    RoboRewardModel(RoboRewardConfig(vlm_name=str(VLM))).save_pretrained(root / "roboreward")
    GVLModel(GVLConfig(vlm_name=str(VLM), max_frames=5, max_answer_tokens=4)).save_pretrained(root / "gvl")
    return {path.name: path for path in root.iterdir()}


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    return Path(shutil.copytree(FIXTURE, tmp_path / "dataset", copy_function=shutil.copyfile))


@contextmanager
def frames_converted() -> Iterator[Counter[tuple[str, float]]]:
    """Counts how often the decoder gives each frame, by file and time."""
    counts: Counter[tuple[str, float]] = Counter()
    images = VideoFrames._images

    def counted(self: VideoFrames, indices: np.ndarray) -> Iterator[np.ndarray]:
        for index, image in zip(indices.tolist(), images(self, indices), strict=True):
            counts[str(self._file()), float(self.times[index])] += 1
            yield image

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(VideoFrames, "_images", counted)
        yield counts


def named(*models: object) -> list[object]:
    return [word for model in models for word in ("--model", model)]


def test_the_files_are_those_of_separate_runs_and_frames_are_decoded_once(dataset: Path, saved: dict[str, Path], tmp_path: Path) -> None:
    kinds = ["topreward", "sarm", "roboreward", "gvl"]
    for name in kinds:
        run = (
            command("label", dataset, "--model", saved[name], *SOME, "--no-cache", "--output-path", tmp_path / f"{name}.parquet")
            if (name == "sarm")
            else command("label", dataset, "--model", saved[name], *SOME, "--output-path", tmp_path / f"{name}.parquet")
        )
        assert run.returncode in (0, 1), run.stderr
    with frames_converted() as counts:
        run = command("label", dataset, *named(*(saved[name] for name in kinds), "elapsed"), *SOME, "--no-cache", "--json")
    assert run.returncode == 1, run.stderr  # a random VLM's words have no percentages
    assert "gvl: " in run.stderr
    assert set(counts.values()) == {1}
    assert len(counts) == 148 + 92  # whole episodes: SARM looks at all of their frames
    found = json.loads(run.stdout.splitlines()[-1])["models"]
    assert [each["name"] for each in found] == [*kinds, "elapsed"]
    for name, each in zip(kinds, found, strict=False):
        path = dataset / f"{name}_progress.parquet"
        assert each["path"] == str(path)
        assert path.read_bytes() == (tmp_path / f"{name}.parquet").read_bytes()
    again = command("label", dataset, *named(*(saved[name] for name in kinds[:3]), "elapsed"), *SOME, "--no-cache")
    assert again.returncode == 0
    assert again.stderr.count("labelled already") == 4


def test_only_the_missing_is_asked_for(dataset: Path, saved: dict[str, Path]) -> None:
    """One model has a file, another an unfinished run: the first is not asked, the second goes on."""
    assert command("label", dataset, "--model", saved["roboreward"], *SOME).returncode == 0
    before = (dataset / "roboreward_progress.parquet").stat().st_mtime_ns
    assert command("label", dataset, "--model", saved["topreward"], "--episodes", "0", "--device", "cpu").returncode == 0
    with frames_converted() as counts:
        run = command("label", dataset, *named(saved["roboreward"], saved["topreward"]), *SOME)
    assert run.returncode == 0, run.stderr
    assert len(counts) == 11  # 2 a second of episode 4 alone, and its last frame
    assert (dataset / "roboreward_progress.parquet").stat().st_mtime_ns == before
    assert set(read_progress(dataset / "topreward_progress.parquet").episode_index.tolist()) == {0, 4}


class Says:
    """A model that says one number, and cannot read some episodes, or breaks at one."""

    def __init__(self, value: float, unreadable: tuple[int, ...] = (), breaks_at: int = -1) -> None:
        self.value, self.unreadable, self.breaks_at = value, unreadable, breaks_at
        self.asked: list[int] = []

    def identity(self) -> dict[str, float]:
        return {"value": self.value}

    def predict(self, episode: Episode) -> Progress:
        self.asked.append(episode.index)
        if episode.index in self.unreadable:
            raise UnreadableError(f"episode {episode.index}: too dark")
        if episode.index == self.breaks_at:
            raise DataError("it broke")
        return Progress(episode.index, np.full(episode.length, self.value, np.float32))


def test_what_one_model_cannot_do_costs_no_other(tmp_path: Path) -> None:
    models = {tmp_path / "a": Says(0.25, unreadable=(1,)), tmp_path / "b": Says(0.5, breaks_at=2), tmp_path / "c": Says(0.75)}
    unread, stops = [], {}
    tables = label_several(
        models, ListDataset(dot_episodes(4)), on_unreadable=lambda path, number, error: unread.append((path.name, number)),
        on_stop=lambda path, error: stops.update({path.name: str(error)}),
    )  # fmt: skip
    assert [path.name for path in tables] == ["a", "c"]
    assert (unread, stops) == ([("a", 1)], {"b": "it broke"})
    a, c = tables.values()
    assert np.isnan(a.values()[a.episode_index == 1]).all()
    assert not np.isnan(c.values()).any()
    assert models[tmp_path / "b"].asked == [0, 1, 2]
    mended = Says(0.5)
    tables = label_several({tmp_path / "b": mended, tmp_path / "c": Says(0.75)}, ListDataset(dot_episodes(4)))
    assert mended.asked == [2, 3]  # it goes on where it was stopped
    assert label(Says(0.5), ListDataset(dot_episodes(4)), tmp_path / "alone").values().tolist() == tables[tmp_path / "b"].values().tolist()
    assert (tmp_path / "alone").read_bytes() == (tmp_path / "b").read_bytes()
    with pytest.raises(DataError, match="it broke"):
        label_several({tmp_path / "x": Says(0.5, breaks_at=0), tmp_path / "y": Says(0.5, breaks_at=1)}, ListDataset(dot_episodes(2)),
                      on_stop=lambda path, error: None)  # fmt: skip
    with pytest.raises(DataError, match="two models would write"):
        label_several({str(tmp_path / "x"): Says(0.5), tmp_path / "x": Says(0.25)}, ListDataset(dot_episodes(2)))


def test_a_kill_loses_no_models_work(tmp_path: Path) -> None:
    class Killed(Says):
        def predict(self, episode: Episode) -> Progress:
            if episode.index == 2:
                raise KeyboardInterrupt
            return super().predict(episode)

    Killed.__name__ = "Says"  # the same model, for its files

    with pytest.raises(KeyboardInterrupt):
        label_several({tmp_path / "a": Says(0.25), tmp_path / "b": Killed(0.5)}, ListDataset(dot_episodes(4)))
    first, second = Says(0.25), Says(0.5)
    label_several({tmp_path / "a": first, tmp_path / "b": second}, ListDataset(dot_episodes(4)))
    assert (first.asked, second.asked) == ([3], [2, 3])


def test_shared_images_are_read_once_and_are_those_of_the_source(monkeypatch: pytest.MonkeyPatch) -> None:
    images = np.random.default_rng(0).integers(0, 255, (150, 4, 5, 3), np.uint8)
    read: Counter[int] = Counter()

    class Counted(ArrayFrames):
        def __getitem__(self, frames: FrameIndex) -> np.ndarray:
            read.update(np.arange(len(self))[frames].tolist())
            return super().__getitem__(frames)

    episode = Episode(0, 0, "go", 10.0, 150, np.zeros((150, 1), np.float32), {"top": Counted(images)})
    shared = with_shared_images(episode).cameras["top"]
    wanted = np.array([7, 3, 3, 149])
    np.testing.assert_array_equal(shared[wanted], images[wanted])
    np.testing.assert_array_equal(np.concatenate(list(shared.chunks(16))), images)
    np.testing.assert_array_equal(shared[::2], images[::2])
    assert max(map(len, shared.chunks(16))) == 16
    assert read[3] == 2  # it was asked for twice in one call
    assert {count for number, count in read.items() if number != 3} == {1}
    assert len(read) == 150
    monkeypatch.setattr("milepost.progress.held.MEMORY", 10 * images[0].nbytes)
    small = with_shared_images(episode).cameras["top"]
    for _ in range(2):
        np.testing.assert_array_equal(np.concatenate(list(small.chunks(16))), images)  # what does not fit is read again


def test_where_the_files_are(dataset: Path, saved: dict[str, Path], tmp_path: Path) -> None:
    both = named(saved["topreward"], "elapsed")
    assert_refused(command("label", dataset, *both, "--output-path", tmp_path / "one.parquet"), "one.parquet", "folder", "--output-path")
    run = command("label", dataset, *both, *SOME, "--output-path", tmp_path / "new" / "folder", "--num-prefixes", 3)
    assert run.returncode == 0, run.stderr
    assert {path.name for path in (tmp_path / "new" / "folder").iterdir()} == {"topreward_progress.parquet", "elapsed_progress.parquet"}
    assert str(tmp_path / "new" / "folder" / "elapsed_progress.parquet") in run.stdout.replace("\n", "")
    shutil.copytree(saved["topreward"], tmp_path / "second")
    run = command("label", dataset, *named(saved["topreward"], tmp_path / "second"), *SOME, "--num-prefixes", 3)
    assert run.returncode == 0, run.stderr
    assert (dataset / "second_progress.parquet").is_file()
    assert_refused(command("label", dataset, *named("elapsed", "elapsed"), *SOME), "elapsed_progress.parquet", "--output-path")
    before = sorted(dataset.iterdir())
    assert_refused(command("label", dataset, *named(saved["topreward"], "elapsed"), "--episodes", "0"), "another --num-prefixes")
    assert sorted(dataset.iterdir()) == before


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((*named("elapsed", "gvl"), "--num-prefixes", 3), ("--num-prefixes means nothing", "elapsed and gvl")),
        ((*named("topreward", "roboreward"), "--vlm-name", VLM), ("--vlm-name", "topreward and roboreward", "docs/models.md")),
        ((*named("elapsed", "nothing"),), ("no model at 'nothing'",)),
    ],
)
def test_options_that_are_refused(words: tuple, said: tuple, dataset: Path) -> None:
    assert_refused(command("label", dataset, *words), *said)


def test_an_option_goes_to_every_model_that_has_it(dataset: Path) -> None:
    """Two models that ask the same VLM load it once."""
    words = ("--vlm-name", VLM, "--fps", 0.5, "--max-frames", 4, "--task", "lift it", "--episodes", 0, "--device", "cpu")
    loads = []
    with pytest.MonkeyPatch.context() as patch:
        load = milepost.models.zero_shot.model.load_engine
        patch.setattr("milepost.models.zero_shot.model.load_engine", lambda *a, **k: loads.append(a) or load(*a, **k))
        run = command("label", dataset, *named("topreward", "gvl", "elapsed"), *words)
    assert run.returncode == 1, run.stderr  # a random VLM's words have no percentages
    assert len(loads) == 1
    for name in ("topreward", "gvl"):
        config = json.loads(read_progress(dataset / f"{name}_progress.parquet").metadata["milepost.config"])
        assert (config["vlm_name"], config["fps"], config["default_task"]) == (str(VLM), 0.5, "lift it")
