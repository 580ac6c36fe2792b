"""The training loop: validation chooses, checkpoints resume exactly, nothing that is not finite gets into a model."""

import dataclasses
import json
import os
import signal
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

import milepost
import milepost.models.training.recipe as training
from milepost.core.errors import DataError
from milepost.core.stages import progress
from milepost.models.sarm.model import SARMModel
from milepost.models.sarm.prepare import training_set, validation_set, with_statistics
from milepost.models.sarm.samples import TrainingSet
from milepost.models.training.config import TrainConfig
from milepost.models.training.episodes import keep_aside
from milepost.models.training.loop import precision
from milepost.testing import dot_episodes, reduced_dots
from test_train import QUICK, SMALL, run

NOISY = dataclasses.replace(SMALL, dropout=0.1, feature_noise=0.3, max_rewind_steps=2, rewind_probability=0.5)
JUDGED = dataclasses.replace(QUICK, steps=20, batch_size=16, validation=0.25, eval_every=4)


def lines(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


def at_step(number: int, what: Callable[[], None]) -> Callable[[int, int], None]:
    """A progress callback that does something once, after that step."""
    return lambda done, total: what() if done == number else None


def fail(error: BaseException) -> Callable[[], None]:
    def now() -> None:
        raise error

    return now


def same_folder(a: Path, b: Path) -> None:
    files = sorted(path.relative_to(a) for path in a.rglob("*") if path.is_file())
    assert files == sorted(path.relative_to(b) for path in b.rglob("*") if path.is_file())
    assert all((a / name).read_bytes() == (b / name).read_bytes() for name in files)


# How long


def test_an_epoch_is_as_many_samples_as_labelled_frames(tmp_path: Path) -> None:
    assert TrainConfig(epochs=2.0, batch_size=10).with_steps(101, 2).steps == 11
    assert TrainConfig(steps=7).with_steps(101, 2).steps == 7
    trained = run(tmp_path, train=dataclasses.replace(QUICK, epochs=0.5))
    episodes = {episode.index: episode for episode in dot_episodes(24, failing=6, tasks=2)}
    frames = sum(episodes[i].length for i in trained.train_episodes)
    assert len(lines(tmp_path)) == trained.fit_result.steps == -(-frames // (2 * QUICK.batch_size))


# Validation


def test_three_sides_share_no_scene_and_the_held_out_side_does_not_move(tmp_path: Path) -> None:
    plain = run(tmp_path / "plain", train=dataclasses.replace(JUDGED, steps=1, validation=0.0))
    judged = run(tmp_path / "judged", train=dataclasses.replace(JUDGED, steps=1))
    assert judged.held_out == plain.held_out
    assert set(judged.train_episodes) | set(judged.validation_episodes) == set(plain.train_episodes)
    assert not set(judged.train_episodes) & set(judged.validation_episodes)
    assert not set(judged.held_out) & set(judged.validation_episodes)
    assert len(judged.validation_episodes) == 4


def test_how_much_is_kept_aside() -> None:
    episodes = [dataclasses.replace(e, facts={**e.facts, "scene": e.index // 2}) for e in dot_episodes(20)]
    learn, aside = keep_aside(episodes, None, 0)
    assert len(aside) == 2
    assert not {e.facts["scene"] for e in learn} & {e.facts["scene"] for e in aside}
    assert keep_aside(episodes, 0.0, 0)[1] == []
    assert keep_aside(episodes[:9], None, 0)[1] == []
    with pytest.raises(DataError, match="no scene can be kept aside"):
        keep_aside(episodes[:2], 0.1, 0)
    assert len(keep_aside(episodes[:4], 0.1, 0)[1]) == 2  # a scene, of two


def test_validation_sees_the_frames_as_they_are_and_is_never_told_the_stage() -> None:
    """Its error is that of the curve a user gets from `predict`; its loss is what `loss` gives when no coin shows the true stage."""
    episodes = dot_episodes(6, failing=2)
    config = with_statistics(dataclasses.replace(NOISY, gt_stage_ratio=1.0), episodes, {})
    torch.manual_seed(0)
    model = SARMModel(config)
    reduced = reduced_dots(episodes)
    training_set(model, episodes, reduced, np.random.default_rng(0))
    data = validation_set(model, episodes, reduced)
    windows = data.plain(10**6)
    assert len(windows["images"]) == sum(episode.length for episode in episodes)
    np.testing.assert_array_equal(windows["images"][:, -1], data.features)
    torch.testing.assert_close(windows, data.plain(10**6), rtol=0, atol=0, equal_nan=True)
    assert 8 <= len(data.plain(10)["images"]) <= 10

    model.eval()
    found = model.validation_scores(windows)
    labels = progress(data.stage["sparse"], data.tau["sparse"], config.heads["sparse"])
    curves = np.concatenate([model.predict(episode).value for episode in episodes])
    assert found["validation_error"] == pytest.approx(np.nanmean(np.abs(curves - labels)), abs=1e-5)
    model.config = dataclasses.replace(config, gt_stage_ratio=0.0)
    assert model.loss(windows)[0].item() == pytest.approx(found["validation_loss"], rel=1e-6)
    model.config = config
    assert abs(model.loss(windows)[0].item() - found["validation_loss"]) > 1e-4


def test_the_folder_holds_the_best_and_last_the_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = {}

    def spy(model: SARMModel, *arguments: object, **options: object) -> object:
        kept["windows"] = options["evaluate"].args[0]
        return fit(model, *arguments, **options)

    fit = training.fit
    monkeypatch.setattr(training, "fit", spy)
    trained = run(tmp_path, NOISY, dataclasses.replace(JUDGED, steps=60, lr=0.1))  # so high that the last is not the best
    losses = {line["step"] + 1: line["validation_loss"] for line in lines(tmp_path) if "validation_loss" in line}
    assert list(losses) == list(range(4, 61, 4))
    best = min(losses, key=lambda step: losses[step])
    assert trained.fit_result.kept == best != 60
    for folder, step in ((tmp_path, best), (tmp_path / "last", 60)):
        model = milepost.load_model(folder)
        assert model.validation_scores(kept["windows"])["validation_loss"] == pytest.approx(losses[step], rel=1e-6)
    assert not (tmp_path / "checkpoint.pt").exists()


def test_without_validation_there_is_no_last(tmp_path: Path) -> None:
    (tmp_path / "last").mkdir()
    (tmp_path / "last" / "config.json").write_text("of an earlier run")
    run(tmp_path, train=dataclasses.replace(QUICK, steps=2))
    assert {path.name for path in tmp_path.iterdir()} == {"config.json", "model.safetensors", "log.jsonl"}


def test_patience(tmp_path: Path) -> None:
    """At a rate of 0 nothing gets better: the first evaluation is the best, and the second in vain after it is the end."""
    trained = run(tmp_path, train=dataclasses.replace(JUDGED, lr=0.0, eval_every=2, patience=2))
    assert (trained.fit_result.steps, trained.fit_result.kept, len(lines(tmp_path))) == (6, 2, 6)


# Resume


@pytest.mark.parametrize("stop", [3, 4, 13])
def test_an_interrupted_run_goes_on_exactly(tmp_path: Path, stop: int) -> None:
    """Noise, dropout, rewind, evaluations, best and patience: every file is the same, byte for byte."""
    train = dataclasses.replace(JUDGED, lr=0.03, patience=4)
    run(tmp_path / "whole", NOISY, train)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "parts", NOISY, train, on_step=at_step(stop, fail(KeyboardInterrupt())))
    assert len(lines(tmp_path / "parts")) == stop
    run(tmp_path / "parts", NOISY, train)
    same_folder(tmp_path / "parts", tmp_path / "whole")


def test_after_a_crash_the_log_is_cut_back_to_the_checkpoint(tmp_path: Path) -> None:
    """The checkpoint of the evaluation at step 4 is what is left; the crash comes after 7, in the middle of a line."""
    run(tmp_path / "whole", NOISY, JUDGED)
    with pytest.raises(RuntimeError, match="power"):
        run(tmp_path / "parts", NOISY, JUDGED, on_step=at_step(7, fail(RuntimeError("power"))))
    assert len(lines(tmp_path / "parts")) == 7  # written as it goes
    assert torch.load(tmp_path / "parts" / "checkpoint.pt", weights_only=True)["step"] == 4
    with (tmp_path / "parts" / "log.jsonl").open("a") as file:
        file.write('{"step": 7, "los')
    run(tmp_path / "parts", NOISY, JUDGED)
    same_folder(tmp_path / "parts", tmp_path / "whole")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_lets_the_step_finish(tmp_path: Path, number: int) -> None:
    run(tmp_path / "whole", NOISY, JUDGED)
    before = signal.getsignal(number)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "parts", NOISY, JUDGED, on_step=at_step(5, lambda: os.kill(os.getpid(), number)))
    assert torch.load(tmp_path / "parts" / "checkpoint.pt", weights_only=True)["step"] == 6
    assert signal.getsignal(number) == before
    run(tmp_path / "parts", NOISY, JUDGED)
    same_folder(tmp_path / "parts", tmp_path / "whole")


# What is not finite


def poisoned(monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    """The pictures of that step's batch are NaN."""
    sample, calls = TrainingSet.sample, []

    def broken(self: TrainingSet, size: int, rng: np.random.Generator) -> dict[str, torch.Tensor]:
        batch = sample(self, size, rng)
        calls.append(size)
        return batch | {"images": batch["images"] * float("nan")} if len(calls) == step + 1 else batch

    monkeypatch.setattr(TrainingSet, "sample", broken)


@pytest.mark.parametrize("validation", [0.0, 0.25])
def test_nan_stops_the_run_and_spoils_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, validation: float) -> None:
    poisoned(monkeypatch, 9)
    with pytest.raises(DataError, match=r"loss became nan at step 9.*after 9 steps") as caught:
        run(tmp_path, train=dataclasses.replace(JUDGED, validation=validation))
    assert str(tmp_path / "last") in str(caught.value)
    assert [line["step"] for line in lines(tmp_path)] == list(range(9))
    folders = [tmp_path / "last", tmp_path] if validation else [tmp_path / "last"]
    for folder in folders:
        value = milepost.load_model(folder).predict(dot_episodes(1)[0]).value
        assert np.isfinite(value).all()
    assert ("the best so far (after 8)" in str(caught.value)) == bool(validation)
    monkeypatch.undo()  # the data mended, the same command goes on from there
    run(tmp_path, train=dataclasses.replace(JUDGED, validation=validation))
    assert len(lines(tmp_path)) == 20


def test_a_device_looked_at_every_few_steps_still_names_the_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a GPU: by the time NaN is seen it is in the weights, so what is kept is the checkpoint before."""
    monkeypatch.setattr("milepost.models.training.loop.READ_EVERY", {"cpu": 5})
    run(tmp_path / "lazy", NOISY, JUDGED)
    monkeypatch.undo()
    run(tmp_path / "eager", NOISY, JUDGED)
    same_folder(tmp_path / "lazy", tmp_path / "eager")
    monkeypatch.setattr("milepost.models.training.loop.READ_EVERY", {"cpu": 5})
    poisoned(monkeypatch, 8)
    with pytest.raises(DataError, match=r"nan at step 8.*weights \(after 8 steps"):
        run(tmp_path / "bad", train=dataclasses.replace(JUDGED, eval_every=8))
    poisoned(monkeypatch, 6)
    with pytest.raises(DataError, match=r"nan at step 6; lower --lr, or look for broken data with milepost info\.$"):
        run(tmp_path / "none", train=dataclasses.replace(JUDGED, validation=0.0))


# Mixed precision


@pytest.mark.parametrize("name", ["bf16", "fp16"])
def test_mixed_precision_lands_near_float32(tmp_path: Path, name: str) -> None:
    """The same run in 16 bits: the first loss differs by rounding, the last is as low; weights stay float32; it resumes exactly."""
    train = dataclasses.replace(QUICK, steps=12, batch_size=16)
    run(tmp_path / "full", train=train)
    mixed = dataclasses.replace(train, mixed_precision=name)
    trained = run(tmp_path / "mixed", train=mixed)
    full, half = ([line["loss"] for line in lines(tmp_path / folder)] for folder in ("full", "mixed"))
    assert full[0] != half[0] == pytest.approx(full[0], rel=0.01)
    assert np.mean(half[-5:]) == pytest.approx(np.mean(full[-5:]), rel=0.1)
    assert trained.fit_result.precision == name
    assert {tensor.dtype for tensor in trained.model.parameters()} == {torch.float32}
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "parts", train=mixed, on_step=at_step(7, fail(KeyboardInterrupt())))
    run(tmp_path / "parts", train=mixed)
    same_folder(tmp_path / "parts", tmp_path / "mixed")


def test_automatic_precision_on_a_cpu_is_float32() -> None:
    assert precision(TrainConfig()) is torch.float32


def test_bad_settings_are_refused() -> None:
    settings = ({"epochs": 0.0}, {"validation": 1.0}, {"patience": 0}, {"eval_every": 0}, {"batch_size": 0})
    for fields in settings:
        with pytest.raises(ValueError, match=next(iter(fields))):
            TrainConfig(**fields)
