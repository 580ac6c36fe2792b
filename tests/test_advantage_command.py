"""`milepost advantage`: its three forms by their readers' rules, what it says of a clock, what it refuses, and what it never changes."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from builders import build_dataset
from language_content import LANGUAGE, replace_cells, write_language
from milepost.core import DataError
from milepost.datasets import LanguageRow, LanguageRows, open_dataset, read_language_subtasks, validate
from milepost.datasets.copy import copy_with_columns
from milepost.testing import dot_episodes, write_dots
from milepost.weights.advantage import AdvantageConfig, EpisodeProgress, label_advantages
from milepost.weights.advantage_files import advantage_paths
from milepost.weights.advantage_lerobot import LEROBOT_FORM, lerobot_returns
from parquet_content import tree
from test_cli import assert_refused, milepost
from test_language import two_steps

COUNT, FAILING = 8, 2


def add_progress(root: Path, name: str, curve_of) -> Path:
    """Writes a progress file beside the dataset. curve_of: episode -> (T,)."""
    dataset = open_dataset(root)
    curves = [np.asarray(curve_of(episode), np.float32) for episode in dataset]
    rows = {
        "index": np.arange(dataset.total_frames),
        "episode_index": np.repeat(np.arange(len(curves)), list(map(len, curves))),
        "frame_index": np.concatenate([np.arange(len(curve)) for curve in curves]),
        "progress_sparse": np.concatenate(curves),
    }
    pq.write_table(pa.table(rows), root / f"{name}_progress.parquet")
    return root / f"{name}_progress.parquet"


def true_curve(episode) -> np.ndarray:
    return episode.columns["truth.progress"]


def clock_curve(episode) -> np.ndarray:
    return np.linspace(0, 1, episode.length)


def add_column(root: Path, name: str, value_of, dtype: str) -> None:
    """Adds a column of numbers to a dataset. value_of: row -> value."""
    for path in sorted((root / "data").rglob("*.parquet")):
        table = pq.read_table(path)
        pq.write_table(table.append_column(name, pa.array([value_of(row) for row in table["index"].to_pylist()])), path)
    info = json.loads((root / "meta/info.json").read_text())
    info["features"][name] = {"dtype": dtype, "shape": [1], "names": None}
    (root / "meta/info.json").write_text(json.dumps(info))


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("advantage") / "dots"
    write_dots(root, dot_episodes(COUNT, failing=FAILING, tasks=2))
    add_progress(root, "sarm", true_curve)
    add_progress(root, "elapsed", clock_curve)
    return root


@pytest.fixture
def dots(written: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return Path(shutil.copytree(written, tmp_path / "dots"))


def labels_of(*words: object) -> dict:
    run = milepost("advantage", *words, "--json")
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout)


def by_rlinf(path: Path) -> dict[tuple[int, int], bool]:
    """Reads labels as RLinf does: a bool by (episode_index, frame_index)."""
    table = pq.read_table(path)
    keys = (np.asarray(table[name]).astype(int).tolist() for name in ("episode_index", "frame_index"))
    assert table.schema.field("advantage").type == pa.bool_()
    return dict(zip(zip(*keys, strict=True), np.asarray(table["advantage"]).astype(bool).tolist(), strict=True))


def by_lerobot(root: Path) -> dict[tuple[int, int], bool]:
    """Reads labels as LeRobot's recipe does: the latest row of the style `advantage` that is not behind the frame's time stamp."""
    labels = {}
    for path in sorted((root / "data").rglob("*.parquet")):
        for row in pq.read_table(path, columns=["episode_index", "frame_index", "timestamp", LANGUAGE]).to_pylist():
            active = [each for each in row[LANGUAGE] if each["style"] == "advantage" and each["timestamp"] <= row["timestamp"]]
            labels[row["episode_index"], row["frame_index"]] = max(active, key=lambda each: each["timestamp"])["content"] == "positive"
    return labels


def test_rlinf_finds_every_frame(dots: Path, tmp_path: Path) -> None:
    before = tree(dots)
    report = labels_of(dots, "--horizon", 10, "--tag", "sarm_10")
    assert tree(dots) == before, "the dataset itself is not changed"
    paths = [Path(path) for path in report["written"]]
    assert paths == list(advantage_paths(Path("advantages_sarm_10"), "sarm_10"))
    labels, dataset = by_rlinf(paths[0]), open_dataset(dots)
    assert set(labels) == {(episode.index, frame) for episode in dataset for frame in range(episode.length)}
    assert np.mean(list(labels.values())) == pytest.approx(report["positive"]) == pytest.approx(0.3, abs=0.05)
    assert sum(group["frames"] for group in report["groups"]["tenth"]) == report["frames"] == len(labels)
    failed = np.mean([labels[e.index, t] for e in dataset if not e.success for t in range(e.length)])
    assert failed < report["positive"]


def test_rlinfs_returns_count_frames(dots: Path) -> None:
    table = pq.read_table(labels_of(dots)["written"][1])
    assert table.column_names == ["episode_index", "frame_index", "return", "reward", "prompt"]
    for episode in open_dataset(dots):
        own = table.filter(pa.compute.equal(table["episode_index"], episode.index))
        assert set(own["prompt"].to_pylist()) == {episode.task}
        end = 0.0 if episode.success else -300.0
        assert own["reward"].to_pylist() == [-1.0] * (episode.length - 1) + [end]
        assert own["return"].to_pylist() == [end - left for left in range(episode.length - 1, -1, -1)]


def test_lerobot_reads_a_label_for_every_frame(dots: Path, tmp_path: Path) -> None:
    before, out = tree(dots), tmp_path / "copy"
    report = labels_of(dots, "--form", "lerobot", "--output-dir", out, "--horizon", 10)
    assert tree(dots) == before
    assert report["positive"] == pytest.approx(0.7, abs=0.05), "the convention is that of the form"
    again = labels_of(dots, "--positive", 0.7, "--horizon", 10)
    assert by_lerobot(out) == by_rlinf(Path(again["written"][0]))
    info = json.loads((out / "meta/info.json").read_text())
    kinds = {"is_terminal": "bool", "mc_return": "float32", LANGUAGE: "language"}
    assert {name: info["features"][name]["dtype"] for name in kinds} == kinds
    assert json.loads((out / "advantage_milepost.json").read_text())["form"] == LEROBOT_FORM
    assert validate(out).healthy
    longest = max(episode.length for episode in open_dataset(dots))
    for episode in open_dataset(out):
        is_terminal, mc_return = lerobot_returns(episode.length, not episode.success, longest)
        np.testing.assert_array_equal(np.asarray(episode.columns["is_terminal"]).reshape(-1), is_terminal)
        np.testing.assert_allclose(np.asarray(episode.columns["mc_return"]).reshape(-1), mc_return, atol=1e-6)
        assert -1 <= mc_return.min() <= mc_return.max() <= 0


def test_lerobots_returns_worked_by_hand() -> None:
    """H = 51, C = 50: a frame is 1 / 100."""
    np.testing.assert_allclose(lerobot_returns(3, False, 51)[1], [-0.02, -0.01, 0])
    np.testing.assert_allclose(lerobot_returns(3, True, 51)[1], [-0.52, -0.51, -0.5])
    assert lerobot_returns(51, True, 51)[1][0] == -1
    assert lerobot_returns(3, True, 51)[0].tolist() == [False, False, True]


def test_a_set_of_the_older_layout_is_copied_with_its_labels(tmp_path: Path) -> None:
    root, out = build_dataset(tmp_path / "old", version="v2.1").root, tmp_path / "copy"
    for path in sorted((root / "data").rglob("*.parquet")):  # of one episode each; all of them succeed
        table = pq.read_table(path)
        place, ends = table.column_names.index("next.success"), [False] * (len(table) - 1) + [True]
        pq.write_table(table.set_column(place, "next.success", pa.array(ends)), path)
    add_progress(root, "sarm", clock_curve_with_pause)
    refused = milepost("advantage", root, "--form", "lerobot", "--output-dir", out, "--horizon", 3, "--positive", 0.4)
    assert refused.returncode == 2
    assert "language columns belong to v3.0, and this makes v3.0 of it: milepost import" in refused.stderr
    assert not out.exists()
    report = labels_of(root, "--form", "column", "--output-dir", out, "--horizon", 3, "--positive", 0.4)
    labels = np.concatenate([np.asarray(episode.columns["advantage"]).reshape(-1) for episode in open_dataset(out)])
    assert len(labels) == report["frames"] == open_dataset(root).total_frames
    assert labels.mean() == pytest.approx(report["positive"])
    assert validate(out).healthy


def test_rows_of_other_styles_stay(tmp_path: Path) -> None:
    root = write_language(tmp_path / "dots", two_steps)
    before = read_language_subtasks(root)
    add_progress(root, "sarm", clock_curve_with_pause)
    out = tmp_path / "copy"
    labels_of(root, "--form", "lerobot", "--output-dir", out)
    assert read_language_subtasks(out) == before
    assert len(by_lerobot(out)) == open_dataset(root).total_frames
    assert_refused(
        milepost("advantage", out, "--form", "lerobot", "--output-dir", tmp_path / "b", "--progress", root / "sarm_progress.parquet")
    )
    rows = LanguageRows("advantage", "user", {0: [LanguageRow("positive", 0.0)]})
    with pytest.raises(DataError, match="rows of style 'advantage' in language_persistent already"):
        copy_with_columns(out, tmp_path / "c", {}, language=rows)


def clock_curve_with_pause(episode) -> np.ndarray:
    curve = clock_curve(episode)
    return np.where(np.arange(episode.length) < 5 + 3 * episode.index, 0, curve)


def test_frames_with_other_rows_are_refused(tmp_path: Path) -> None:
    root = write_language(tmp_path / "dots", two_steps)
    replace_cells(root, lambda cells: [*cells[:3], [], *cells[4:]])
    rows = LanguageRows("advantage", "user", {0: [LanguageRow("positive", 0.0)]})
    with pytest.raises(DataError, match="episode 0: 1 frame holds other language rows than the first one"):
        copy_with_columns(root, tmp_path / "c", {}, language=rows)


def test_a_plain_column(dots: Path, tmp_path: Path) -> None:
    out = tmp_path / "copy"
    report = labels_of(dots, "--form", "column", "--output-dir", out)
    labels = by_rlinf(Path(labels_of(dots)["written"][0]))
    for episode in open_dataset(out):
        column = np.asarray(episode.columns["advantage"]).reshape(-1)
        assert column.tolist() == [labels[episode.index, frame] for frame in range(episode.length)]
        assert np.isfinite(episode.columns["advantage_continuous"]).all()
    assert json.loads((out / "meta/info.json").read_text())["features"]["advantage"]["dtype"] == "bool"
    assert json.loads((out / "meta/stats.json").read_text())["advantage"]["mean"] == [pytest.approx(report["positive"], abs=1e-6)]
    assert validate(out).healthy
    shutil.copy(dots / "sarm_progress.parquet", out)
    run = milepost("advantage", out, "--form", "column", "--output-dir", tmp_path / "b")
    assert_refused(run, "has a feature 'advantage' already")
    assert not (tmp_path / "b").exists()


def test_a_clock_is_called_out(dots: Path) -> None:
    clock = labels_of(dots, "--progress", dots / "elapsed_progress.parquet", "--horizon", 10, "--dry-run")
    truth = labels_of(dots, "--beside", dots / "elapsed_progress.parquet", "--horizon", 10, "--dry-run")
    assert clock["by_time"] == pytest.approx(1, abs=1e-3)
    assert truth["by_time"] < 0.98
    said = [any("these are the labels of a clock" in line for line in each["warnings"]) for each in (clock, truth)]
    assert said == [True, False]
    assert truth["agreement"]["kappa"] < 0.6
    assert clock["agreement"] is None


def test_the_report_comes_before_anything_is_written(dots: Path, tmp_path: Path) -> None:
    run = milepost("advantage", dots, "--dry-run", "--beside", dots / "elapsed_progress.parquet")
    assert run.returncode == 0, run.stderr
    for words in ("Positive by task", "Positive by outcome", "Positive by tenth", "90 to 100 %", "the time explains", "Cohen's kappa"):
        assert words in run.stdout
    assert "none are written" in run.stdout
    assert not (tmp_path / "advantages_milepost").exists()


def test_interventions_are_positive(dots: Path) -> None:
    add_column(dots, "intervention", lambda row: row % 10 == 0, "bool")
    report = labels_of(dots, "--horizon", 10)
    labels, dataset = by_rlinf(Path(report["written"][0])), open_dataset(dots)
    assert all(labels[e.index, t] for e in dataset for t in range(e.length) if (e.row + t) % 10 == 0)
    assert report["interventions"] == len(range(0, dataset.total_frames, 10))


def test_missing_rows_are_counted(dots: Path) -> None:
    path = dots / "sarm_progress.parquet"
    pq.write_table(pq.read_table(path).slice(12), path)
    report = labels_of(dots)
    assert "frames of the dataset without a row in the progress file: 12, each is negative" in report["warnings"]
    labels = by_rlinf(Path(report["written"][0]))
    assert not any(labels[0, frame] for frame in range(12))
    assert len(labels) == report["frames"]


def test_a_set_without_failures_is_warned_of(tmp_path: Path) -> None:
    write_dots(tmp_path / "dots", dot_episodes(4))
    add_progress(tmp_path / "dots", "sarm", true_curve)
    report = labels_of(tmp_path / "dots", "--dry-run")
    assert any(line.startswith("no episode is known to have failed") for line in report["warnings"])


def test_ties_at_the_threshold_are_said(tmp_path: Path) -> None:
    write_dots(tmp_path / "dots", dot_episodes(4))
    add_progress(tmp_path / "dots", "sarm", lambda episode: np.where(np.arange(episode.length) < 3, 0.6, 0.5))
    report = labels_of(tmp_path / "dots", "--dry-run", "--horizon", 1, "--positive", 0.4)
    assert report["positive"] > 0.5
    assert any("where 40% were asked for" in line for line in report["warnings"])


def test_what_is_refused(dots: Path, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    write_dots(tmp_path / "other/dots", dot_episodes(9, seed=5))
    elsewhere = add_progress(tmp_path / "other/dots", "sarm", true_curve)
    assert_refused(milepost("advantage", dots, "--progress", elsewhere), "it was made for another dataset")
    assert_refused(milepost("advantage", dots, "--beside", elsewhere), "it was made for another dataset")
    own = dots / "sarm_progress.parquet"
    assert_refused(milepost("advantage", dots, "--progress", own, "--beside", own), "give another model's")
    assert_refused(milepost("advantage", dots, "--form", "lerobot"), "name its folder with --output-dir")
    assert_refused(milepost("advantage", dots, "--form", "column", "--output-dir", tmp_path / "other"), "exists already")
    for folder in (dots, dots / "new"):
        assert_refused(milepost("advantage", dots, "--output-dir", folder), "is a dataset or lies in one, which is not written into")
    assert_refused(milepost("advantage", dots, "--positive", 1), "--positive must be above 0 and below 1")
    assert_refused(milepost("advantage", dots, "--positive", 0.4, "--convention", "rlinf"), "leave one of them out")
    assert_refused(milepost("advantage", dots, "--tag", "../up"), "--tag has letters")
    flat = add_progress(tmp_path / "other/dots", "flat", lambda episode: np.full(episode.length, 0.5))
    assert_refused(milepost("advantage", tmp_path / "other/dots", "--progress", flat), "progress is 0.5 in every frame")
    steps = add_progress(tmp_path / "other/dots", "steps", lambda episode: np.arange(episode.length) >= episode.length - 1)
    run = milepost("advantage", tmp_path / "other/dots", "--progress", steps, "--horizon", 1, "--positive", 0.9)
    assert_refused(run, "would be positive", "choose a smaller --positive")
    write_dots(tmp_path / "failures", dot_episodes(2, failing=2))
    add_progress(tmp_path / "failures", "sarm", true_curve)
    assert_refused(milepost("advantage", tmp_path / "failures"), "has no successful episode")
    assert not (tmp_path / "advantages_milepost").exists()


def test_files_of_another_program_stay(dots: Path, tmp_path: Path) -> None:
    labels, _ = advantage_paths(tmp_path / "out", "milepost")
    labels.parent.mkdir(parents=True)
    pq.write_table(pa.table({"advantage": [True]}), labels)
    assert_refused(milepost("advantage", dots, "--output-dir", tmp_path / "out"), "was not written by milepost advantage")
    assert milepost("advantage", dots, "--output-dir", tmp_path / "out", "--overwrite").returncode == 0
    assert milepost("advantage", dots, "--output-dir", tmp_path / "out").returncode == 0, "its own are replaced"


def test_labels_of_another_dataset_stay(dots: Path, tmp_path: Path) -> None:
    assert milepost("advantage", dots, "--output-dir", tmp_path / "out").returncode == 0
    other = Path(shutil.copytree(dots, tmp_path / "other"))
    add_column(other, "intervention", lambda row: row == 3, "bool")
    add_progress(other, "sarm", true_curve)
    again = ("advantage", other, "--output-dir", tmp_path / "out")
    assert_refused(milepost(*again), "has the labels of another dataset ('dots')", "--tag", "--overwrite")
    assert milepost(*again, "--overwrite").returncode == 0


def test_interventions_alone_divide_nothing(dots: Path) -> None:
    add_column(dots, "intervention", lambda row: True, "bool")
    add_progress(dots, "sarm", true_curve)
    assert_refused(milepost("advantage", dots), "is an intervention, so there is nothing to divide", "--episodes")


def test_the_folder_that_holds_the_hubs_cache_is_part_of_it(dots: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "cache"))
    name = ("--progress", dots / "sarm_progress.parquet")
    assert_refused(milepost("advantage", dots, *name, "--output-dir", tmp_path / "cache" / "x"), "never written into")
    assert_refused(milepost("advantage", dots, *name, "--form", "column", "--output-dir", tmp_path / "cache" / "y"), "Hub's cache")
    assert_refused(milepost("copy", dots, "--output-dir", tmp_path / "cache" / "z"), "Hub's cache")
    assert not (tmp_path / "cache").exists()


def test_a_hub_snapshot_is_never_written_into(dots: Path, tmp_path: Path) -> None:
    snapshot = tmp_path / "hub/datasets--ada--dots/snapshots/0123456789abcdef0123456789abcdef01234567"
    shutil.copytree(dots, snapshot)
    before = tree(snapshot)
    name = ("--progress", snapshot / "sarm_progress.parquet")
    assert_refused(milepost("advantage", snapshot, *name, "--output-dir", snapshot), "never written into")
    assert_refused(milepost("advantage", snapshot, *name, "--output-dir", snapshot / "more"), "never written into")
    assert_refused(milepost("advantage", snapshot, *name, "--form", "column", "--output-dir", snapshot / "c"), "in the Hub's cache")
    assert milepost("advantage", snapshot, *name, "--output-dir", tmp_path / "out").returncode == 0
    assert tree(snapshot) == before


def fail_task(root: Path, episodes: set[int]) -> None:
    """Lets these episodes fail, as meta/ says it."""
    for path in sorted((root / "meta/episodes").rglob("*.parquet")):
        table = pq.read_table(path)
        pairs = zip(table["episode_index"].to_pylist(), table["success"].to_pylist(), strict=True)
        values = pa.array([value and number not in episodes for number, value in pairs])
        pq.write_table(table.set_column(table.column_names.index("success"), "success", values), path)


def test_tasks_without_a_success_are_all_named_with_a_way_out(dots: Path, tmp_path: Path) -> None:
    dataset = open_dataset(dots)
    tasks = sorted({episode.task for episode in dataset})
    unsolved = {episode.index for episode in dataset if episode.task == tasks[0]}
    fail_task(dots, unsolved)
    assert_refused(milepost("advantage", dots), f"the task {tasks[0]!r} has no successful episode", "--skip-unsolved", "--episodes")
    chosen = ",".join(str(number) for number in dataset.episode_indices if number not in unsolved)
    for number, words in enumerate((("--skip-unsolved",), ("--episodes", chosen))):
        report = labels_of(dots, "--tag", f"t{number}", *words)
        assert f"{len(unsolved)} episodes without labels: negative" in report["warnings"][0]
        labels = by_rlinf(Path(report["written"][0]))
        assert set(labels) == {(each.index, frame) for each in dataset for frame in range(each.length)}, "RLinf needs every frame"
        assert not any(is_positive for (episode, _), is_positive in labels.items() if episode in unsolved)
        assert [group["name"] for group in report["groups"]["task"]] == tasks[1:]
    out = tmp_path / "copy"
    labels_of(dots, "--skip-unsolved", "--form", "lerobot", "--output-dir", out)
    rows = [row for path in (out / "data").rglob("*.parquet") for row in pq.read_table(path).to_pylist()]
    assert {row["episode_index"] for row in rows if not row[LANGUAGE]} == unsolved, "no label is in force there"
    assert all(np.isfinite(row["mc_return"]) for row in rows), "the returns need no progress"
    fail_task(dots, set(dataset.episode_indices))
    assert_refused(milepost("advantage", dots, "--skip-unsolved"), "nothing can be labelled", "record one")


def test_every_task_without_a_threshold_is_named() -> None:
    """Three tasks, two of them at the usual pace throughout: both are named, and the way out is one."""
    paces = {"fold": np.linspace(0, 1, 21), "pour": np.linspace(0, 1, 11), "wipe": np.linspace(0, 1, 11) ** 2}
    episodes = [EpisodeProgress(number, task, curve) for number, (task, curve) in enumerate(paces.items())]
    with pytest.raises(DataError, match=r"task 'fold' has the same advantage .* alike is so of 'pour'\. .*--no-per-task"):
        label_advantages(episodes, AdvantageConfig(horizon=3))
    assert set(label_advantages(episodes, AdvantageConfig(horizon=3, per_task=False)).thresholds) == {""}


def test_ties_get_advice_that_helps(tmp_path: Path) -> None:
    root = tmp_path / "dots"
    write_dots(root, dot_episodes(4))
    add_progress(root, "sarm", lambda episode: np.where(np.arange(episode.length) < episode.length - 1, 0.5, 0.6))
    refused = milepost("advantage", root, "--dry-run", "--horizon", 1, "--positive", 0.9)
    assert refused.returncode == 2
    below = float(refused.stderr.split("smaller --positive, below ")[1].split(",")[0])
    assert milepost("advantage", root, "--dry-run", "--horizon", 1, "--positive", below * 0.9).returncode == 0, "the advice helps"
    clock = add_progress(root, "elapsed", clock_curve)
    write_dots(tmp_path / "alike", dot_episodes(2))
    from_end = milepost("advantage", root, "--progress", clock, "--horizon", 1, "--episodes", "0", "--dry-run")
    assert_refused(from_end, "has the same advantage (0), so no --positive divides them: choose another --horizon")


def test_failures_that_are_positive_like_successes_are_said(dots: Path) -> None:
    path = add_progress(dots, "blind", lambda episode: clock_curve(episode) ** 2)
    words = "frames of failed episodes are positive as often as those of the others"
    report = labels_of(dots, "--progress", path, "--horizon", 10, "--failure", 0, "--dry-run")
    assert report["failures"][""]["failed"] >= 0.9 * report["failures"][""]["others"]
    assert any(line.startswith(words) for line in report["warnings"])
    assert not any(line.startswith(words) for line in labels_of(dots, "--horizon", 10, "--dry-run")["warnings"])


def test_frames_without_a_label_are_said_first(dots: Path) -> None:
    path = dots / "sarm_progress.parquet"
    table = pq.read_table(path)
    values = table["progress_sparse"].to_numpy().copy()
    values[:7] = np.nan
    pq.write_table(table.set_column(table.column_names.index("progress_sparse"), "progress_sparse", pa.array(values)), path)
    report = labels_of(dots, "--horizon", "end", "--dry-run")
    assert report["warnings"][0].startswith(f"frames of unknown advantage: 7 of {report['frames']}, each is negative")
