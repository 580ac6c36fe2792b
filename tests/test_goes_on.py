"""One bad episode, one other process, one kill: the rest is done, nothing is mixed, and the same command finishes."""

import dataclasses
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from milepost.core.errors import DataError, UnreadableError
from milepost.core.outputs import BusyError, output_lock
from milepost.core.types import Episode, Progress, read_episodes
from milepost.metrics.evaluation import score_episode, summarise
from milepost.models.elapsed import ElapsedModel
from milepost.models.training.marks import finish_run, is_unfinished
from milepost.progress.labelling import label
from milepost.progress.store import ProgressStore
from milepost.progress.table import read_progress
from milepost.testing import CAMERA, STAGES, ConstantModel, ListDataset, dot_episodes, tiny_sarm
from reviewed import annotated_dataset
from test_cli import milepost
from test_train import QUICK, losses, run

DATA = Path(__file__).parent / "data"


class Damaged(ListDataset):
    """A dataset in which the rows of some episodes cannot be read."""

    bad: tuple[int, ...] = (1,)

    @property
    def episode_indices(self) -> list[int]:
        return [episode.index for episode in self.episodes]

    def __getitem__(self, index: int) -> Episode:
        if index in self.bad:
            raise UnreadableError(f"episode {index}: its rows are gone")
        return self.episodes[index]

    def row_range(self, episode_index: int) -> tuple[int, int]:
        if episode_index == 2:
            raise UnreadableError("nobody knows its rows")
        return self.episodes[episode_index].row, self.episodes[episode_index].row + self.episodes[episode_index].length


def test_an_episode_that_cannot_be_read_is_left_unknown_and_named(tmp_path: Path) -> None:
    dataset = Damaged(dot_episodes(5))
    dataset.bad = (1, 2)
    heard: dict[int, str] = {}
    table = label(ConstantModel(), dataset, tmp_path / "p.parquet", on_unreadable=lambda n, error: heard.update({n: str(error)}))
    assert list(heard) == [1, 2]
    assert set(table.episode_index.tolist()) == {0, 1, 3, 4}  # of episode 2 nobody knows the rows
    assert np.isnan(table.episode(1, dataset.episodes[1].length)).all()
    assert (table.episode(3, dataset.episodes[3].length) == 0.5).all()
    dataset.bad = ()
    model = ConstantModel()
    again = label(model, dataset, tmp_path / "p.parquet")
    assert model.calls == 2  # the two that were unknown; the others are kept
    assert not np.isnan(again.values()).any()
    np.testing.assert_array_equal(again.index, np.arange(sum(episode.length for episode in dataset.episodes)))


def test_nothing_is_written_if_no_episode_can_be_read(tmp_path: Path) -> None:
    dataset = Damaged(dot_episodes(2))
    dataset.bad = (0, 1)
    with pytest.raises(UnreadableError, match="episode 1"):
        label(ConstantModel(), dataset, tmp_path / "p.parquet")
    assert not list(tmp_path.iterdir())
    with pytest.raises(UnreadableError):
        read_episodes(dataset)
    dataset.bad = (1,)
    assert read_episodes(dataset)[1] == {1: "episode 1: its rows are gone"}


def test_a_finished_file_is_extended_and_made_anew_only_if_asked(tmp_path: Path) -> None:
    episodes, path = dot_episodes(4), tmp_path / "p.parquet"
    first = ListDataset(episodes[:2])
    label(ConstantModel(), first, path)
    every = ListDataset(episodes)
    every.fingerprint = first.fingerprint
    model = ConstantModel()
    table = label(model, every, path)
    assert model.calls == 2
    assert set(table.episode_index.tolist()) == {0, 1, 2, 3}
    model = ConstantModel()
    label(model, every, path, overwrite=True)
    assert model.calls == 4
    every.fingerprint = "other frames"
    model = ConstantModel()
    with pytest.raises(DataError, match=r"made with another dataset; use --overwrite or .* overwrite=True"):
        label(model, every, path)
    label(model, every, path, overwrite=True)
    assert model.calls == 4


def test_what_another_model_made_is_replaced_only_if_asked(tmp_path: Path) -> None:
    """The same call on the command line and in Python: neither a finished file nor an unfinished run of another model is lost."""
    dataset, path = ListDataset(dot_episodes(3)), tmp_path / "p.parquet"
    label(ConstantModel(0.25), dataset, path)
    before = path.read_bytes()
    with pytest.raises(DataError, match="made with another config"):
        label(ConstantModel(0.75), dataset, path)
    with pytest.raises(DataError, match="made with another stride"):
        label(ConstantModel(0.25), dataset, path, options={"stride": 2})
    with pytest.raises(DataError, match="is a folder"):
        label(ConstantModel(0.25), dataset, tmp_path)
    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["p.parquet"]
    path.unlink()
    with pytest.raises(KeyboardInterrupt):
        label(ConstantModel(0.25, interrupt_after=2), dataset, path)
    with pytest.raises(DataError, match="begun with another config, and is unfinished"):
        label(ConstantModel(0.75), dataset, path)
    model = ConstantModel(0.25)
    label(model, dataset, path)
    assert model.calls == 1


def test_two_models_of_one_config_are_told_apart_by_their_weights(tmp_path: Path) -> None:
    first, other, path = tiny_sarm(seed=0), tiny_sarm(seed=1), tmp_path / "p.parquet"
    assert first.identity() == other.identity()
    label(first, ListDataset(dot_episodes(2)), path)
    with pytest.raises(DataError, match="made with another weights"):
        label(other, ListDataset(dot_episodes(2)), path)


def test_two_writers_never_mix(tmp_path: Path) -> None:
    path = tmp_path / "p.parquet"
    label(ConstantModel(0.25), ListDataset(dot_episodes(3)), path)
    before = path.read_bytes()
    with output_lock(path), pytest.raises(BusyError, match=f"process {os.getpid()}"):
        _in_thread(lambda: label(ConstantModel(0.75), ListDataset(dot_episodes(3)), path))
    assert path.read_bytes() == before


def _in_thread(call: object) -> object:
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(1) as pool:
        return pool.submit(call).result()  # type: ignore[arg-type]


def test_a_folder_that_is_not_ours_is_never_removed(tmp_path: Path) -> None:
    theirs = tmp_path / "p.parquet.partial"
    theirs.mkdir()
    (theirs / "thesis.tex").write_text("years of work")
    with pytest.raises(DataError, match="not a folder that milepost made"):
        label(ConstantModel(), ListDataset(dot_episodes(2)), tmp_path / "p.parquet")
    assert (theirs / "thesis.tex").read_text() == "years of work"


def test_many_short_episodes_are_a_few_parts(tmp_path: Path) -> None:
    store = ProgressStore(tmp_path / "p.parquet", {"model_path": "m"})
    for number in range(500):
        store.add(Progress(number, np.full(2, 0.5, np.float32)), 2 * number)
    store.close()
    assert len(list(store.folder.glob("*.parquet"))) <= 3
    again = ProgressStore(tmp_path / "p.parquet", {"model_path": "m"})
    assert all(again.has(number) for number in range(500))
    np.testing.assert_array_equal(again.finish().index, np.arange(1000))


def test_an_interrupted_table_is_finished_by_the_same_call(tmp_path: Path) -> None:
    """The steps are done, the card is not: nothing is learnt again, and the model and what chose it are the same."""
    train = dataclasses.replace(QUICK, steps=6, more_follows=True, validation=0.2, eval_every=2)
    first = run(tmp_path, train=train)
    weights, lines = (tmp_path / "model.safetensors").read_bytes(), losses(tmp_path)
    assert is_unfinished(tmp_path)

    def never(done: int, total: int) -> None:
        assert done == total

    again = run(tmp_path, train=train, on_step=never)
    assert (tmp_path / "model.safetensors").read_bytes() == weights
    assert losses(tmp_path) == lines
    assert again.fit_result == first.fit_result
    assert all((a == b).all() for a, b in zip(again.model.state_dict().values(), first.model.state_dict().values(), strict=True))
    with pytest.raises(DataError, match="other settings or data"):
        run(tmp_path, train=dataclasses.replace(train, seed=1))
    finish_run(tmp_path)
    assert not is_unfinished(tmp_path)


@pytest.mark.parametrize("damage", ["cut", "text", "number", "empty"])
def test_a_damaged_checkpoint_is_named_and_can_be_overwritten(tmp_path: Path, damage: str) -> None:
    import torch

    def interrupt(done: int, total: int) -> None:
        if done == 3:
            raise KeyboardInterrupt

    train = dataclasses.replace(QUICK, steps=6)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, train=train, on_step=interrupt)
    path = tmp_path / "checkpoint.pt"
    if damage == "number":
        torch.save(7, path)
    else:
        path.write_bytes({"cut": path.read_bytes()[:1000], "text": b"hello", "empty": b""}[damage])
    with pytest.raises(DataError, match=r"checkpoint.*is damaged.*--overwrite"):
        run(tmp_path, train=train)
    run(tmp_path, train=dataclasses.replace(train, overwrite=True))
    assert len(losses(tmp_path)) == 6


class Unreadable:
    """A camera whose film is gone."""

    def __init__(self, length: int) -> None:
        self.length = length

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, frames: np.ndarray) -> np.ndarray:
        raise UnreadableError("video episode.mp4 is missing")

    def chunks(self, size: int = 64) -> object:
        raise UnreadableError("video episode.mp4 is missing")


def test_training_goes_on_without_an_episode_whose_pictures_are_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import test_train

    bad = {2, 7}
    whole = dot_episodes(24, failing=6, tasks=2)
    gone = [dataclasses.replace(e, cameras={CAMERA: Unreadable(e.length)}) if e.index in bad else e for e in whole]
    monkeypatch.setattr(test_train, "dot_episodes", lambda *a, **k: gone)
    trained = run(tmp_path, train=dataclasses.replace(QUICK, steps=2), holdout=0.0)
    assert set(trained.unreadable) == bad
    assert all("missing" in words for words in trained.unreadable.values())
    assert not bad & {*trained.train_episodes, *trained.validation_episodes}


def test_a_clock_tells_no_success_from_a_failure() -> None:
    """Every clock ends at 1. Failures run longer here, as they do in recordings, and must not win or lose by it."""
    episodes = dot_episodes(12, failing=6)
    longer = [e if e.facts["success"] else _stretched(e) for e in episodes]
    scores = [score_episode(ElapsedModel().predict(episode).main, episode, STAGES) for episode in longer]
    table = summarise(scores, np.random.default_rng(0))
    assert table.auc.value == 0.5
    assert table.final_failure.value == 1.0
    (alone,) = [str(summarise(scores[:1], np.random.default_rng(0)).final_success)]
    assert alone == "1.000 (n = 1)"


def _stretched(episode: Episode) -> Episode:
    twice = np.repeat(np.arange(episode.length), 2)
    return Episode(
        index=episode.index, row=episode.row, task=episode.task, fps=episode.fps, length=len(twice), state=episode.state[twice],
        columns={name: column[twice] for name, column in episode.columns.items()}, facts=episode.facts,
    )  # fmt: skip


def test_old_parts_of_one_episode_each_are_taken_over(tmp_path: Path) -> None:
    store = ProgressStore(tmp_path / "p.parquet", {"model_path": "m"})
    store.add(Progress(3, np.full(2, 0.5, np.float32)), 6)
    store.close()
    (part,) = store.folder.glob("*.parquet")
    part.rename(store.folder / "episode-000003.parquet")
    assert ProgressStore(tmp_path / "p.parquet", {"model_path": "m"}).has(3)
    assert pq.read_table(store.folder / "episode-000003.parquet").num_rows == 2
    with pytest.raises(DataError, match="no such file"):
        read_progress(tmp_path / "p.parquet")


def test_the_default_mode_on_an_annotated_dataset_trains_to_its_end(tmp_path: Path) -> None:
    """single_stage has one stage, the dataset's annotation three: the table takes the annotation for the truth, and the run is complete."""
    root = annotated_dataset(tmp_path / "annotated")
    words = ("train", root, "--output-dir", tmp_path / "m", "--preset", "small", "--gap-s", 0.2, "--steps", 2, "--batch-size", 4)
    done = milepost(*words, "--holdout", 0.2, "--device", "cpu")
    assert done.returncode == 0, done.stderr
    record = json.loads((tmp_path / "m" / "evaluation.json").read_text())
    assert record["held_out_table"]["sarm"]["error"]["value"] > 0
    assert (tmp_path / "m" / "README.md").is_file()
    assert not (tmp_path / "m" / "run.json").exists()
    assert milepost(*words).returncode == 2  # it is finished: not replaced without being asked


def test_a_clock_beside_a_clock_is_evaluated(tmp_path: Path) -> None:
    root = Path(shutil.copytree(DATA / "dataset_v3", tmp_path / "plain"))
    assert milepost("label", root, "--model", "elapsed").returncode == 0
    alone = milepost("evaluate", root)
    assert alone.returncode == 0, alone.stderr
    assert "elapsed (file)" in alone.stdout
    assert "left out, because no truth is known" in " ".join(alone.stdout.split())
    shutil.copy(root / "elapsed_progress.parquet", root / "sarm_progress.parquet")
    several = milepost("evaluate", root)
    assert several.returncode == 0, several.stderr
    assert "sarm_progress.parquet is taken, as LeRobot does" in several.stderr
