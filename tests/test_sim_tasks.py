"""The simulated tasks that nothing was tuned on: what is done is what Meta-World calls a success, experts pass the stages in order,
failures fail as their kind says. Real simulator, no pictures."""

import numpy as np
import pytest

pytest.importorskip("metaworld", reason="simulation needs the extra 'sim'")

from milepost.sim.behaviours import FAILURES, INSTEAD, SUCCESSES
from milepost.sim.rollout import Rollout, SimConfig, roll_out
from milepost.sim.stagewise import finish, stages_of
from milepost.sim.tasks import HOME, STAGES, TASKS, Trace
from milepost.sim.truth import RolloutTruth, truth_of_rollouts
from milepost.sim.world import scripted, world

UNTUNED = ("door-open-v3", "button-press-v3", "bin-picking-v3")
Attempts = list[tuple[Rollout, RolloutTruth]]


@pytest.fixture(scope="module", params=UNTUNED)
def attempts(request: pytest.FixtureRequest) -> Attempts:
    """Two experts and one attempt of every other kind, with their truth."""
    kinds = dict.fromkeys([*SUCCESSES, *FAILURES], 1)
    rollouts = roll_out(SimConfig(tasks=(request.param,), episodes=kinds, references=2))
    return list(zip(rollouts, truth_of_rollouts(rollouts)[0], strict=True))


@pytest.mark.parametrize("name", UNTUNED)
def test_done_is_what_meta_world_calls_a_success(name: str) -> None:
    place, expert, task = world(name), scripted(name), TASKS[name]
    view, seen = place.reset(1), set()
    for step in range(300):
        place.step(expert(view))
        view = place.view()
        trace = Trace(view.hand[None], np.array([view.opening]), view.thing[None], view.tip[None], view.goal)
        if step % 5 == 0:
            observation = np.concatenate([view.hand, [view.opening], place.env._get_pos_objects(), np.zeros(32)])
            np.testing.assert_allclose(observation[4:7], view.thing, atol=1e-9, err_msg=f"{task.thing} is not what the script is told")
            success = bool(place.env.evaluate_state(observation, np.zeros(4, np.float32))[1]["success"])
            assert bool(task.done(trace)[0]) == success, step
            seen.add(success)
    assert seen == {False, True}


def test_experts_pass_the_stages_in_order(attempts: Attempts) -> None:
    experts = [(rollout, truth) for rollout, truth in attempts if rollout.kind == "expert"]
    assert len(experts) == 2
    for rollout, truth in experts:
        assert [segment.name for segment in truth.segments] == list(STAGES)
        assert min(segment.stop - segment.start for segment in truth.segments) >= 3
        assert (np.diff(truth.stage) >= 0).all()
        assert truth.progress[0] < 0.05
        assert rollout.success
        assert finish(rollout.task, rollout.trace) == int(np.argmax(truth.success))
        assert np.minimum(np.diff(truth.progress), 0).sum() > -0.4  # a script may reach for an object twice


def test_other_successes_pass_all_stages_too(attempts: Attempts) -> None:
    others = [(rollout, truth) for rollout, truth in attempts if rollout.kind in SUCCESSES and rollout.kind != "expert"]
    assert len(others) == 3
    for rollout, truth in others:
        assert rollout.success
        assert set(truth.stage.tolist()) == {0, 1, 2}
        assert (truth.progress[truth.success] == 1).all()


def test_failures_fail_as_their_kind_says(attempts: Attempts) -> None:
    task = attempts[0][0].task
    failures = {rollout.kind: (rollout, truth) for rollout, truth in attempts if rollout.kind in FAILURES}
    assert set(failures) == {INSTEAD.get((kind, task), kind) for kind in FAILURES}
    for rollout, truth in failures.values():
        assert not rollout.success
        assert not TASKS[task].done(rollout.trace).any()
        assert not truth.success.any()
        assert truth.progress[-1] < 0.95
    assert failures["failing_early"][1].stage.max() == 0
    if "dropping" in failures:
        stage = failures["dropping"][1].stage
        assert (stage.max() >= 1, stage[-1]) == (True, 0)


# --- stages, by hand -------------------------------------------------------------------------------------------------------------


def trace_of_points(things: list[list[float]], goal: list[float]) -> Trace:
    """A hand that is at the object from frame 1 on."""
    thing = np.array(things)
    return Trace(np.vstack([HOME, thing[1:]]), np.ones(len(thing)), thing, thing, np.array(goal))


def test_a_button_has_moved_is_nearly_in_and_is_pressed() -> None:
    depths = [0.0] * 3 + [0.02] * 3 + [0.049, 0.051, 0.06, 0.07] + [0.074] * 3
    trace = trace_of_points([[0.05, 0.7 + depth, 0.115] for depth in depths], [0.05, 0.793, 0.115])
    assert stages_of("button-press-v3", trace).tolist() == [0] * 3 + [1] * 4 + [2] * 6
    assert finish("button-press-v3", trace) == 10  # less than 2 cm from the bottom


def test_a_door_counts_from_where_its_handle_was_and_goes_back_with_it() -> None:
    angles = np.repeat([0.0, 0.5, 1.5, 0.5, 0.0, 2.0], 3)
    points = [[0.2 - 0.3 * (1 - np.cos(a)), 0.7 - 0.3 * np.sin(a), 0.15] for a in angles]
    trace = trace_of_points(points, [-0.3, 0.46, 0.15])
    assert stages_of("door-open-v3", trace).tolist() == np.repeat([0, 1, 2, 1, 0, 2], 3).tolist()
    assert finish("door-open-v3", trace) == 15  # at 2 rad the handle is 0.075 m short in x
    assert finish("door-open-v3", trace_of_points(points, [-0.31, 0.46, 0.15])) is None


def test_a_cube_is_in_hand_over_the_bin_and_in_it() -> None:
    points = np.repeat([[-0.1, 0.7, 0.03], [-0.1, 0.7, 0.15], [0.06, 0.7, 0.15], [0.1, 0.7, 0.14], [0.12, 0.7, 0.04]], 3, axis=0)
    trace = trace_of_points(points.tolist(), [0.12, 0.7, 0.0])
    assert stages_of("bin-picking-v3", trace).tolist() == np.repeat([0, 1, 1, 2, 2], 3).tolist()
    assert finish("bin-picking-v3", trace) == 12
