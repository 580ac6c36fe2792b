"""An audit is planned, then run: the plan asks nothing and writes nothing, and what an earlier run stored is not computed again."""

import dataclasses
import inspect
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from milepost.core import ArrayFrames, DataError, Episode, ModelError, Progress, UnreadableError, reordered
from milepost.datasets import as_dataset
from milepost.metrics import CONTROLS, EpisodeCurves, copies
from milepost.models import ElapsedModel
from milepost.progress import AuditConfig, AuditRun, audit, plan_audit, run_audit, verdict_in_words
from milepost.progress.curve_store import SEEDED, AskedCurves, CurveStore
from milepost.progress.held import with_images_in_memory
from milepost.testing import CAMERA, ConstantModel, ListDataset, dot_episodes

FEW = AuditConfig(controls=("frozen_first", "shuffled"))


class Refusing(ElapsedModel):
    """A clock that refuses a copy without instruction, of some episodes or of all; it counts what it is shown."""

    def __init__(self, refused: tuple[int, ...]) -> None:
        super().__init__()
        self.refused, self.calls = refused, 0

    def predict(self, episode: Episode) -> Progress:
        self.calls += 1
        if not episode.task and episode.index in self.refused:
            raise UnreadableError(f"episode {episode.index} has no task in words")
        return super().predict(episode)


def one(episode: Episode) -> int:
    return 1


def nans(value: Any) -> list[Any]:
    """Every number that is not finite, at any depth."""
    if isinstance(value, dict):
        return [each for inner in value.values() for each in nans(inner)]
    if isinstance(value, list):
        return [each for inner in value for each in nans(inner)]
    return [value] if isinstance(value, float) and not math.isfinite(value) else []


def test_a_plan_asks_nothing_and_writes_nothing(tmp_path: Path) -> None:
    model = ConstantModel()
    plan = plan_audit(model, ListDataset(dot_episodes(6, tasks=2)), folder=tmp_path / "curves")
    assert (model.calls, list(tmp_path.iterdir())) == (0, [])
    assert [episode.index for episode in plan.left] == list(range(6))
    assert set(plan.controls[0]) == set(CONTROLS) - {"other_camera"}
    assert plan.missing == {"other_camera": "there is one camera"}
    assert plan.questions(one) == 6 * len(CONTROLS)  # the recording, and every control but one
    assert len(repr(plan)) < 3000


def test_a_plan_has_what_can_be_made_and_was_asked_for() -> None:
    plan = plan_audit(ConstantModel(), ListDataset(dot_episodes(3)))
    assert "other_task" not in plan.controls[0]
    assert plan.missing["other_task"] == "the dataset has one instruction"
    long, other = dot_episodes(2)
    episodes = [long, reordered(other, np.arange(3))]
    plan = plan_audit(ConstantModel(), ListDataset(episodes), config=AuditConfig(controls=("half_rate", "cut_50")))
    assert plan.controls == {0: ("cut_50", "half_rate"), 1: ("cut_50",)}
    assert "half_rate" not in plan.missing  # one episode has it
    assert plan.missing["shuffled"] == "it was not asked for"
    assert plan.questions(one) == 3 + 2


def test_what_is_refused_is_not_counted() -> None:
    plan = plan_audit(ConstantModel(), ListDataset(dot_episodes(4)), config=AuditConfig(controls=("shuffled", "empty_task")))
    assert plan.questions(lambda episode: 3 if episode.task else 0) == 4 * 2 * 3
    assert plan.questions(lambda episode: 0 if episode.index == 2 and episode.task else 3) == 3 * 3 * 3  # nor its copies


def test_an_interrupted_run_goes_on_from_its_plan(tmp_path: Path) -> None:
    dataset = ListDataset(dot_episodes(5))
    with pytest.raises(KeyboardInterrupt):
        audit(ConstantModel(interrupt_after=8), dataset, config=FEW, folder=tmp_path)  # three an episode: the third is begun
    model = ConstantModel()
    plan = plan_audit(model, dataset, config=FEW, folder=tmp_path)
    assert sorted(plan.stored) == [0, 1]
    assert plan.questions(one) == 3 * 3
    run = run_audit(plan, beside={"elapsed": ElapsedModel()})
    assert model.calls == 9
    whole = audit(ConstantModel(), dataset, config=FEW)
    assert run.to_dict() | {"beside": {}} == whole.to_dict()
    finished = plan_audit(model, dataset, config=FEW, folder=tmp_path)
    assert (finished.left, finished.questions(one)) == ((), 0)
    run_audit(finished)
    assert model.calls == 9


def test_every_control_by_name_is_the_default(tmp_path: Path) -> None:
    dataset = ListDataset(dot_episodes(2))
    audit(ConstantModel(), dataset, folder=tmp_path)
    assert not plan_audit(ConstantModel(), dataset, config=AuditConfig(controls=CONTROLS), folder=tmp_path).left
    assert len(plan_audit(ConstantModel(), dataset, config=AuditConfig(head="dense"), folder=tmp_path).left) == 2
    assert len(plan_audit(ConstantModel(0.2), dataset, folder=tmp_path).left) == 2
    assert len(plan_audit(ConstantModel(), dataset, folder=tmp_path, options={"stride": 2}).left) == 2


def test_what_is_on_disk_is_used_whatever_is_run_and_stays(tmp_path: Path) -> None:
    """Each control is paid for once: fewer of them, or another seed, take nothing from the disk."""
    dataset = ListDataset(dot_episodes(2))
    whole = audit(Refusing((0,)), dataset, folder=tmp_path / "a")  # of a model that refuses a copy too
    model = Refusing((0,))
    few = audit(model, dataset, config=FEW, folder=tmp_path / "a")
    assert (model.calls, set(few.curves[0].controls)) == (0, set(FEW.controls))
    other = plan_audit(model, dataset, config=AuditConfig(seed=1), folder=tmp_path / "a")
    assert (len(other.left), other.stored, other.questions(one)) == (2, {}, 2 * len(SEEDED))
    expected = audit(Refusing((0,)), dataset, config=AuditConfig(seed=1))
    assert run_audit(other).to_dict() == expected.to_dict()
    assert model.calls == 2 * len(SEEDED)
    assert audit(model, dataset, folder=tmp_path / "a").to_dict() == whole.to_dict()
    assert model.calls == 2 * len(SEEDED)
    audit(model, dataset, config=FEW, folder=tmp_path / "b")
    assert plan_audit(model, dataset, folder=tmp_path / "b").questions(one) == 2 * len(whole.curves[1].controls) - 2 * 2


def test_which_copies_depend_on_the_seed() -> None:
    (episode,) = dot_episodes(1)
    one_seed, other_seed = (copies(episode, tasks=("lift the dot",), seed=seed) for seed in (0, 1))
    frames = np.arange(4)
    differing = [name for name in one_seed if (one_seed[name].camera(CAMERA)[frames] != other_seed[name].camera(CAMERA)[frames]).any()]
    assert tuple(differing) == SEEDED


def test_curves_of_other_clocks_are_not_taken(tmp_path: Path) -> None:
    """Which channels run on in the copies depends on the other episodes: curves over other copies are another model's, so to speak."""
    plain = dot_episodes(2)
    audit(ConstantModel(), ListDataset(plain), config=FEW, folder=tmp_path)
    timed = [
        dataclasses.replace(each, state=np.column_stack([each.state, np.arange(each.length)]).astype(np.float32))
        for each in dot_episodes(2)
    ]
    plan = plan_audit(ConstantModel(), ListDataset(timed), config=FEW, folder=tmp_path)
    assert plan.clocks
    assert len(plan.left) == 2


def test_a_store_has_the_curves_of_one_origin(tmp_path: Path) -> None:
    (episode,) = dot_episodes(1)
    other, third = (dataclasses.replace(episode, task=task) for task in ("push the blue dot", "lift the dot"))
    real = np.array([0.25, np.nan, 1], np.float32)
    curves = EpisodeCurves(0, episode.task, episode.success, real, {"other_task": real[::-1]}, seed=3, scaled=False)
    store = CurveStore(tmp_path / "curves", {"model_type": "A", "milepost_version": "1"}, 3)
    assert store.read(episode, {"other_task": other}) is None
    assert not list(tmp_path.iterdir())
    store.write(AskedCurves(curves), episode, {"other_task": other})
    stored = CurveStore(tmp_path / "curves", {"model_type": "A", "milepost_version": "2"}, 3).read(episode, {"other_task": other})
    assert stored is not None
    again = stored.curves
    assert (again.seed, again.scaled, set(again.controls)) == (3, False, {"other_task"})
    np.testing.assert_array_equal(again.real, real)
    np.testing.assert_array_equal(again.controls["other_task"], real[::-1])
    another = store.read(episode, {"other_task": third})
    assert another is not None
    assert set(another.lacks({"other_task": third})) == {"other_task"}
    assert CurveStore(tmp_path / "curves", {"model_type": "B"}).read(episode, {"other_task": other}) is None
    (tmp_path / "curves" / "episode_000000.json").write_text("{")
    with pytest.raises(DataError, match=r"episode_000000\.json"):
        store.read(episode, {"other_task": other})


@pytest.mark.parametrize("whose", [(), (1, 4), tuple(range(6))])
def test_a_copy_that_is_refused_counts_for_the_episodes_that_have_it(whose: tuple[int, ...]) -> None:
    config = AuditConfig(controls=("frozen_first", "empty_task"))
    run = audit(Refusing(whose), ListDataset(dot_episodes(6)), config=config)
    assert (len(run.curves), run.unreadable) == (6, {})
    assert run.audit.rows["final_empty_task"].episodes == 6 - len(whose)
    assert run.partial() == ({"empty_task": 4} if len(whose) == 2 else {})
    assert run.audit.missing.get("empty_task") == ("the model refuses such a copy" if len(whose) == 6 else None)
    assert run.audit.missing["other_task"] == "it was not asked for"


class Faulty(ElapsedModel):
    """A clock with a fault on copies that are longer than a recording, of some episodes or of all: it says NaN, or raises an error."""

    def __init__(self, faulty: tuple[int, ...], fault: Exception | None = None) -> None:
        super().__init__()
        self.faulty, self.fault = faulty, fault

    def predict(self, episode: Episode) -> Progress:
        progress = super().predict(episode)
        if episode.length <= 40 or episode.index not in self.faulty:
            return progress
        if self.fault is not None:
            raise self.fault
        return Progress(episode.index, np.full(episode.length, np.nan, np.float32))


@pytest.mark.parametrize("fault", [None, UnreadableError("it is too long")])
@pytest.mark.parametrize("whose", [(1,), (0, 1, 2)])
def test_a_copy_of_which_the_model_says_nothing_is_missing_alone(whose: tuple[int, ...], fault: Exception | None, tmp_path: Path) -> None:
    why = "it is too long" if fault else "the model says NaN, which means unknown, of every frame"
    dataset, config = ListDataset(dot_episodes(3)), AuditConfig(controls=("frozen_first", "double_rate"))
    for model in (Faulty(whose, fault), Faulty((), None)):  # the second one is asked nothing
        run = audit(model, dataset, config=config, folder=tmp_path)
        assert (len(run.curves), run.unreadable) == (3, {})
        assert run.refused == {index: {"double_rate": why} for index in whose}
        assert run.partial() == ({"double_rate": 2} if len(whose) == 1 else {})
        assert run.audit.missing.get("double_rate") == (f"the model refuses such a copy: {why}" if len(whose) == 3 else None)


@pytest.mark.parametrize("fault", [ValueError("too bright"), DataError("too bright"), ModelError("too bright")])
def test_a_fault_of_the_model_names_the_episode_and_the_copy(fault: Exception) -> None:
    with pytest.raises(DataError, match=r"too bright \(of episode 1, copy double_rate\)$"):
        audit(Faulty((1,), fault), ListDataset(dot_episodes(2)))


@pytest.mark.parametrize("count", [1, 7])
def test_no_number_in_json_is_nan(count: int) -> None:
    run = audit(ConstantModel(), ListDataset(dot_episodes(count)), config=FEW, beside={"elapsed": ElapsedModel()})
    assert any(math.isnan(row.value) for row in run.audit.rows.values())
    record = run.to_dict()
    assert nans(record) == []
    assert json.loads(json.dumps(record, allow_nan=False)) == record
    assert record["rows"]["auc"]["value"] is None
    assert record["reason"] == run.audit.reason


def test_without_episodes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("milepost.progress.auditing.as_dataset", inspect.unwrap(as_dataset))
    with pytest.raises(DataError, match="a ListDataset has one episode or more, got none"):
        ListDataset([])
    with pytest.raises(DataError, match=r"expected a dataset of milepost\.open_dataset, a folder or a Hub id, got list"):
        inspect.unwrap(plan_audit)(ConstantModel(), [])  # as users call it: without the types that tests check


class Sparse(ConstantModel):
    """A model that is known in three frames."""

    def predict(self, episode: Episode, num_prefixes: int = 3) -> Progress:
        value = super().predict(episode).value.copy()
        value[3:] = np.nan
        return Progress(episode.index, value)


def test_a_paid_model_whose_curve_cannot_be_judged_is_asked_once() -> None:
    dataset, model = ListDataset(dot_episodes(2)), Sparse()
    with pytest.raises(DataError, match=r"episode 0 is known in 3 of \d+ frames.*give more than --num-prefixes 3$"):
        run_audit(plan_audit(model, dataset, config=FEW, options={"num_prefixes": 3}), paid=True)
    assert model.calls == 1
    assert len(run_audit(plan_audit(model, dataset, config=FEW)).curves) == 2
    assert len(run_audit(plan_audit(ConstantModel(), dataset, config=FEW), paid=True).curves) == 2


def test_names_of_controls() -> None:
    with pytest.raises(ValueError, match="the controls have 'shuffled' twice; name each of them once"):
        AuditConfig(controls=("shuffled", "cut_50", "shuffled"))
    with pytest.raises(ValueError, match="there is no control 'all'; there are frozen_first"):
        AuditConfig(controls=("all",))


def test_a_verdict_in_words() -> None:
    assert verdict_in_words("clock") == "it rises with time, whatever is seen"
    assert verdict_in_words("clock", "it rose") == "it rises with time, whatever is seen (it rose)"


def test_images_are_in_memory_unless_they_are_too_large(monkeypatch: pytest.MonkeyPatch) -> None:
    (episode,) = dot_episodes(1)
    images = episode.camera(CAMERA)[np.arange(episode.length)]
    inside = with_images_in_memory(episode)
    assert isinstance(inside.cameras[CAMERA], ArrayFrames)
    np.testing.assert_array_equal(inside.camera(CAMERA)[np.arange(episode.length)], images)
    monkeypatch.setattr("milepost.progress.held.MEMORY", images.nbytes - 1)
    assert with_images_in_memory(episode).cameras[CAMERA] is episode.cameras[CAMERA]


def test_a_run_is_in_short() -> None:
    run = audit(ConstantModel(), ListDataset(dot_episodes(2)), config=FEW)
    assert isinstance(run, AuditRun)
    assert len(repr(run)) < 3000
