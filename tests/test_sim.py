"""Simulated attempts: scenes repeat, kinds keep their promises, the truth is what it says, datasets come out equal and resume.

Everything here is the real simulator. What draws is skipped, saying why, where no OpenGL context can be made.
"""

import hashlib
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from milepost.core.errors import DataError
from milepost.core.stages import progress, proportions, targets
from milepost.core.types import Segment

pytest.importorskip("metaworld", reason="simulation needs the extra 'sim'")

from milepost.annotation.sources import read_annotations, read_truth
from milepost.sim.behaviours import FAILURES, INSTEAD, KINDS
from milepost.sim.dataset import make_dataset
from milepost.sim.rollout import Rollout, SimConfig, keeps_promise, roll_out, trace_of
from milepost.sim.scene import CAMERAS, NoRendererError, Painter, require_renderer
from milepost.sim.stagewise import debounced, finish, runs, stages_of
from milepost.sim.tasks import HOME, STAGES, TASKS, Trace
from milepost.sim.truth import Ranking, RolloutTruth, truth_of_rollouts
from milepost.sim.world import EVERY, world

Told = list[tuple[Rollout, RolloutTruth]]
STUDIED = ("assembly-v3", "drawer-open-v3", "peg-insert-side-v3", "pick-place-v3", "shelf-place-v3")
"""The tasks of the demo and of the study of weights; `test_sim_tasks.py` has the others."""


@pytest.fixture(scope="module")
def told() -> Told:
    """A few attempts of every kind in every studied task, with their truth."""
    counts = {kind: 2 if kind in ("expert", "hesitating") else 1 for kind in KINDS}
    rollouts = roll_out(SimConfig(tasks=STUDIED, episodes=counts, references=6))
    return list(zip(rollouts, truth_of_rollouts(rollouts)[0], strict=True))


@pytest.fixture(scope="module")
def renderer() -> None:
    try:
        require_renderer()
    except NoRendererError as error:
        pytest.skip(str(error))


def of_kind(told: Told, *kinds: str) -> Told:
    found = [(rollout, truth) for rollout, truth in told if rollout.kind in kinds]
    assert found
    return found


# --- stages and ranks, by hand ---------------------------------------------------------------------------------------------------


def drawer(pulled: list[float]) -> Trace:
    """A drawer open by so many metres, the hand on its handle from frame 1 on."""
    thing = np.array([[0.0, 0.73 - x, 0.09] for x in pulled])
    return Trace(np.vstack([HOME, thing[1:]]), np.ones(len(pulled)), thing, thing, np.array([0.0, 0.54, 0.09]))


def test_drawer_stages_follow_the_handle() -> None:
    trace = drawer([0, 0, 0, 0.02, 0.05, 0.08, 0.09, 0.12, 0.15, 0.18, 0.19, 0.19])
    assert stages_of("drawer-open-v3", trace).tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2, 2, 2, 2]
    assert finish("drawer-open-v3", trace) == 9


def test_stage_goes_back_when_the_drawer_does() -> None:
    trace = drawer([0] * 3 + [0.05] * 3 + [0.0] * 3 + [0.1] * 3)
    assert stages_of("drawer-open-v3", trace).tolist() == [0] * 3 + [1] * 3 + [0] * 3 + [2] * 3
    assert finish("drawer-open-v3", trace) is None


@pytest.mark.parametrize(
    ("raw", "clean"),
    [
        ([0, 0, 0, 1, 0, 0, 1, 1, 1], [0, 0, 0, 0, 0, 0, 1, 1, 1]),
        ([1, 0, 0, 0, 2, 2, 2], [0, 0, 0, 0, 2, 2, 2]),
        ([0, 0, 0, 1, 1, 2, 2, 2], [0, 0, 0, 0, 0, 2, 2, 2]),
        ([0, 1], [0, 0]),
        ([2], [2]),
    ],
)
def test_flicker_goes_to_the_run_before(raw: list[int], clean: list[int]) -> None:
    assert debounced(np.array(raw)).tolist() in (clean, [1] * len(raw))
    assert all(b - a >= 3 for a, b in runs(debounced(np.array(raw)))) or len(raw) < 3


def test_a_flash_of_success_is_none() -> None:
    assert finish("drawer-open-v3", drawer([0, 0.1, 0.18, 0.1, 0.1, 0.1])) is None


def test_tau_is_the_share_of_expert_frames_less_far_along() -> None:
    expert = drawer([0, 0, 0, 0.02, 0.03, 0.04, 0.05, 0.06, 0.09, 0.11, 0.13, 0.15, 0.18, 0.18, 0.18])
    tau = Ranking("drawer-open-v3", [expert]).tau(drawer([0, 0, 0, 0.01001, 0.04, 0.055, 0.09, 0.1, 0.13, 0.16]))
    np.testing.assert_allclose(tau[3:], [0, 2 / 5, 3.5 / 5, 0, 0.5 / 4, 2 / 4, 1], atol=1e-6)


def test_ranking_refuses_experts_that_skip_a_stage() -> None:
    with pytest.raises(ValueError, match="finish the task"):
        Ranking("drawer-open-v3", [drawer([0, 0, 0, 0.05, 0.05, 0.05])])


# --- scenes ----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", TASKS)
def test_scenes_repeat_whatever_came_before_and_differ(name: str) -> None:
    def scene(number: int) -> np.ndarray:
        view = world(name).reset(number)
        return np.concatenate([view.hand, view.thing, view.tip, view.goal, world(name).data.qpos])

    first, second, again = scene(7), scene(8), scene(7)
    np.testing.assert_array_equal(first, again)
    assert np.abs(first - second).max() > 0.01
    np.testing.assert_allclose(first[:3], TASKS[name].home, atol=0.02)


# --- attempts --------------------------------------------------------------------------------------------------------------------


def test_every_attempt_is_what_its_kind_promises(told: Told) -> None:
    for rollout, truth in told:
        task = TASKS[rollout.task]
        assert rollout.success == (rollout.kind not in FAILURES) == bool(truth.success[-1])
        if rollout.kind in FAILURES:
            assert not task.done(rollout.trace).any()
            assert 0.85 * task.usual <= len(rollout) <= 1.45 * task.usual
        else:
            after = int(truth.success.sum())
            assert after >= 3


def test_no_two_attempts_share_a_scene(told: Told) -> None:
    assert len({rollout.scene for rollout, _ in told}) == len(told)


def test_impossible_kinds_are_made_up_for(told: Told) -> None:
    assert ("dropping", "drawer-open-v3") in INSTEAD
    kinds = [rollout.kind for rollout, _ in told if rollout.task == "drawer-open-v3" and rollout.stored]
    assert len(kinds) == sum(rollout.task == "assembly-v3" and rollout.stored for rollout, _ in told)
    assert "dropping" not in kinds
    assert kinds.count("giving_up") == 2


def test_a_broken_promise_is_seen(told: Told) -> None:
    success, _ = of_kind(told, "expert")[0]
    assert keeps_promise(success, ever=True)
    assert not keeps_promise(replace(success, kind="giving_up"), ever=True)
    failure, _ = of_kind(told, "giving_up")[0]
    assert keeps_promise(failure, ever=False)
    assert not keeps_promise(failure, ever=True)
    assert not keeps_promise(replace(failure, kind="expert"), ever=False)


def test_same_seed_same_attempts_for_any_number_of_workers() -> None:
    config = SimConfig(tasks=("drawer-open-v3",), episodes={"clumsy": 1, "failing_early": 1}, references=2, seed=3)
    one, two = roll_out(config), roll_out(config, workers=2)
    for a, b in zip(one, two, strict=True):
        assert (a.kind, a.scene) == (b.kind, b.scene)
        np.testing.assert_array_equal(a.joints, b.joints)
        np.testing.assert_array_equal(a.action, b.action)
    other = roll_out(replace(config, seed=4))
    assert {rollout.scene for rollout in other}.isdisjoint(rollout.scene for rollout in one)


def test_replayed_actions_do_what_the_attempt_did(told: Told) -> None:
    """A frame's action, held until the next frame, is what a policy learns: it has to lead where the demonstration went."""
    rollouts = [rollout for rollout, _ in told if rollout.success]
    off, done = {}, []
    for rollout in rollouts:
        place = world(rollout.task)
        place.reset(rollout.scene)
        path, finished = [], []
        for action in rollout.action:
            path.append(place.view().hand)
            for _ in range(EVERY):
                place.step(action)
            finished.append(bool(TASKS[rollout.task].done(trace_of([place.view()]))[0]))
        done.append(any(finished))
        off.setdefault(rollout.kind, []).append(np.linalg.norm(np.array(path) - rollout.trace.hand, axis=1).mean())
    assert np.mean(done) > 0.9
    assert max(np.mean(errors) for errors in off.values()) < 0.01


# --- truth -----------------------------------------------------------------------------------------------------------------------


def test_truth_stays_in_bounds_and_segments_tile_what_comes_before_success(told: Told) -> None:
    for _, truth in told:
        assert truth.progress.dtype == truth.tau.dtype == np.float32
        assert truth.progress.min() >= 0
        assert truth.progress.max() <= 1
        assert truth.tau.min() >= 0
        assert truth.tau.max() <= 1
        until = int(np.argmax(truth.success)) if truth.success.any() else len(truth.success)
        assert [s.start for s in truth.segments] == [0, *[s.stop for s in truth.segments[:-1]]]
        assert truth.segments[-1].stop == until
        for segment in truth.segments:
            assert set(truth.stage[segment.start : segment.stop]) == {STAGES.index(segment.name)}
        assert (truth.progress[truth.success] == 1).all()
        assert (truth.tau[truth.success] == 1).all()
        assert (truth.stage[truth.success] == 2).all()


def test_experts_pass_the_stages_in_order_and_rise_evenly(told: Told) -> None:
    for rollout, truth in of_kind(told, "expert"):
        assert [segment.name for segment in truth.segments] == list(STAGES)
        assert min(segment.stop - segment.start for segment in truth.segments) >= 3
        assert len(rollout) >= 24
        falls = np.minimum(np.diff(truth.progress), 0)
        assert falls.sum() > -0.1
        assert truth.progress[0] < 0.05


def test_time_linear_labels_agree_with_the_truth(told: Told) -> None:
    stages = proportions([truth.segments for rollout, truth in told if rollout.success and rollout.stored], STAGES)
    for kinds, bar in ((("expert",), 0.03), (("hesitating", "clumsy", "backtracking"), 0.09)):
        errors = []
        for _, truth in of_kind(told, *kinds):
            stage, tau = targets(truth.segments, STAGES, len(truth.stage), True)
            errors.append(np.nanmean(np.abs(progress(stage, tau, stages) - truth.progress)))
        assert np.mean(errors) < bar


def test_failures_end_low_and_what_is_dropped_is_lost(told: Told) -> None:
    finals = [float(truth.progress[-1]) for _, truth in of_kind(told, *FAILURES)]
    assert np.mean(finals) < 0.4
    for _, truth in of_kind(told, "dropping"):
        assert truth.stage.max() >= 1
        assert truth.stage[-1] == 0
        assert truth.progress[-1] < truth.progress.max() - 0.1
    for _, truth in of_kind(told, "failing_early"):
        assert truth.stage.max() == 0


def test_hesitation_earns_nothing(told: Told) -> None:
    earned = []
    for rollout, truth in of_kind(told, "hesitating"):
        moved = [np.linalg.norm(np.diff(points, axis=0), axis=1) for points in (rollout.trace.hand, rollout.trace.tip)]
        still = np.maximum(*moved) < 0.002
        paused = [(a, b) for a, b in runs(still) if still[a] and b - a >= 3 and not truth.success[a:b].any()]
        for start, stop in paused:
            earned.append(float(truth.progress[stop] - truth.progress[start]))
    assert len(earned) >= 5
    assert np.abs(earned).max() < 0.04


@pytest.mark.parametrize(
    "bad",
    [
        {"tasks": ("cook-dinner",)},
        {"tasks": ()},
        {"tasks": ("assembly-v3", "assembly-v3")},
        {"episodes": {"brilliant": 1}},
        {"episodes": {"expert": 0}},
        {"size": 47},
        {"seed": -1},
    ],
)
def test_impossible_configs_are_refused(bad: dict) -> None:
    with pytest.raises(DataError):
        SimConfig(**bad)


# --- pictures --------------------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("renderer")
def test_pictures_show_the_attempt(told: Told) -> None:
    rollout, _ = of_kind(told, "expert")[0]
    with Painter(rollout.task, 48) as painter:
        for camera in CAMERAS:
            images = np.stack(list(painter.frames(rollout, camera)))
            assert images.shape == (len(rollout), 48, 48, 3)
            assert images.dtype == np.uint8
            assert (images[0] != images[-1]).any(axis=-1).mean() > 0.1
            np.testing.assert_array_equal(images, np.stack(list(painter.frames(rollout, camera))))


def test_a_missing_renderer_is_named_before_any_work(tmp_path: Path) -> None:
    if sys.platform != "linux":
        pytest.skip("takes the driver away by Linux means")
    script = (
        "from pathlib import Path; from milepost.sim import SimConfig, make_dataset\nfrom milepost.sim.scene import NoRendererError\n"
        f"root = Path({str(tmp_path / 'ds')!r})\n"
        "try: make_dataset(root, SimConfig())\n"
        "except NoRendererError as error: print(error)"
    )
    blind = os.environ | {"__EGL_VENDOR_LIBRARY_FILENAMES": str(tmp_path / "none.json"), "MUJOCO_GL": "egl"}
    out = subprocess.run([sys.executable, "-c", script], env=blind, capture_output=True, text=True, check=True)
    assert "libegl1 libgl1-mesa-dri" in out.stdout
    assert not list(tmp_path.iterdir())


# --- datasets --------------------------------------------------------------------------------------------------------------------


TINY = SimConfig(
    tasks=("drawer-open-v3", "assembly-v3"), episodes={"expert": 1, "giving_up": 1}, size=48, references=2, codec="libx264", seed=1
)


def tables(root: Path) -> dict[str, str]:
    """Every table and description of a dataset, hashed."""
    files = [path for path in root.rglob("*") if path.suffix in (".parquet", ".json")]
    return {str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.fixture(scope="module")
def dataset(renderer: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("sim") / "one"
    make_dataset(root, TINY, workers=1)
    return root


def test_a_dataset_is_whole(dataset: Path) -> None:
    import pyarrow.parquet as pq

    info = json.loads((dataset / "meta/info.json").read_text())
    assert (info["fps"], info["total_episodes"], info["total_tasks"]) == (20, 4, 2)
    assert info["features"]["observation.images.wrist"]["shape"] == [48, 48, 3]
    rows = pq.read_table(next(dataset.glob("data/**/*.parquet")))
    assert {"truth.progress", "truth.stage", "truth.tau", "next.success"} <= set(rows.column_names)
    np.testing.assert_allclose(rows["timestamp"][:3].to_numpy(), [0, 0.05, 0.1], atol=1e-7)
    episodes = pq.read_table(next(dataset.glob("meta/episodes/**/*.parquet"))).to_pylist()
    assert {(e["kind"], e["success"]) for e in episodes} == {("expert", True), ("giving_up", False)}
    assert len({e["scene"] for e in episodes}) == 4
    annotated = [
        [Segment(*s) for s in zip(e["sparse_subtask_names"], e["sparse_subtask_start_frames"], e["sparse_subtask_end_frames"], strict=True)]
        for e in episodes
        if e["success"]
    ]
    shares = json.loads((dataset / "meta/temporal_proportions_sparse.json").read_text())
    assert tuple(shares.values()) == pytest.approx(proportions(annotated, tuple(shares)).shares)
    assert not dataset.with_name("one.partial").exists()


def test_the_truth_of_every_frame_gives_the_same_segments(dataset: Path) -> None:
    truth = read_truth(dataset)
    assert len(truth) == 4
    assert truth == read_annotations(dataset) == read_truth(dataset, STAGES)


def test_an_interrupted_dataset_goes_on_and_comes_out_the_same(dataset: Path, tmp_path: Path) -> None:
    root, seen = tmp_path / "two", []

    def interrupt(what: str, done: int, total: int) -> None:
        if (what, done) == ("drawing", 2):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        make_dataset(root, TINY, workers=2, on_progress=interrupt)
    assert not root.exists()
    kept = {path: path.stat().st_mtime_ns for path in (tmp_path / "two.partial").glob("*/*/episode.json")}
    assert len(kept) >= 2
    make_dataset(root, TINY, workers=2, on_progress=lambda *now: seen.append(now))
    assert ("drawing", 4, 4) in seen or len(kept) == 4
    assert sum(what == "drawing" for what, _, _ in seen) == 4 - len(kept)
    assert tables(root) == tables(dataset)
    assert [path.name for path in tmp_path.iterdir()] == ["two"]


def test_an_existing_folder_is_not_touched(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="exists already"):
        make_dataset(tmp_path, TINY)


@pytest.mark.usefixtures("renderer")
def test_tritons_llvm_is_there_before_mesas(tmp_path: Path) -> None:
    """The other way round the process ends with a segmentation fault as soon as an optimizer is made (torch for NVIDIA GPUs, no GPU)."""
    (tmp_path / "triton.py").write_text(
        "import sys\nmaps = open('/proc/self/maps').read() if sys.platform == 'linux' else ''\nassert 'libEGL_mesa' not in maps\n"
    )
    code = "import sys; from milepost.sim.scene import require_renderer; require_renderer(); print(sys.modules['triton'].__file__)"
    paths = os.pathsep.join([str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])])
    run = subprocess.run([sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": paths}, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    assert run.stdout.strip() == str(tmp_path / "triton.py")
