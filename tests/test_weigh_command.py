"""`milepost weigh`, the weight lab: what it says of curves whose faults are known, what it draws, what it refuses."""

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from milepost.datasets.reader import open_dataset
from milepost.figures.dropped import DroppedSpan, dropped_figure, span_frames
from milepost.figures.style import figure_bytes, png
from milepost.figures.weights import AdviceView, advice_figure
from milepost.progress.table import read_progress
from milepost.weights.advice import (
    EpisodeInfo,
    advise,
    by_episode,
    by_name,
    diagnose,
    dropped_spans,
    flags,
    frame_noise,
    recommended,
    smoothing_for,
    sweep,
)
from milepost.weights.config import RabcConfig
from milepost.weights.file import read_weights_file
from milepost.weights.loader import SampleWeights
from milepost.weights.result import WeightResult, weigh
from test_cli import FIXTURE, assert_refused, milepost


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    """LeRobot's own dataset, with what the recorder says of each episode, and curves: four good, one that pauses, one that fails."""
    root = Path(shutil.copytree(FIXTURE, tmp_path / "dataset"))
    kinds = ["expert", "expert", "hesitating", "expert", "giving_up", "expert"]
    lengths = []
    for path in sorted((root / "meta" / "episodes").rglob("*.parquet")):
        table = pq.read_table(path)
        own = [kinds[number] for number in table["episode_index"].to_pylist()]
        lengths += table["length"].to_pylist()
        table = table.append_column("kind", pa.array(own)).append_column("success", pa.array([kind != "giving_up" for kind in own]))
        pq.write_table(table, path)
    curves = [np.linspace(0, 1, n) for n in lengths]
    pause = lengths[2] // 2
    curves[2] = np.concatenate([np.linspace(0, 0.5, 40), np.full(pause, 0.5), np.linspace(0.5, 1, lengths[2] - 40 - pause)])
    curves[4] = np.concatenate([np.linspace(0, 0.4, lengths[4] - 60), np.linspace(0.4, 0.1, 60)])
    write_progress(root / "sarm_progress.parquet", curves)
    return root


def write_progress(path: Path, curves: list[np.ndarray], drop: tuple[int, ...] = ()) -> None:
    value = np.concatenate(curves).astype(np.float32)
    lengths = [len(curve) for curve in curves]
    columns = {
        "index": np.arange(len(value)),
        "episode_index": np.repeat(np.arange(len(curves)), lengths),
        "frame_index": np.concatenate([np.arange(n) for n in lengths]),
        "progress_sparse": value,
    }
    kept = np.setdiff1d(np.arange(len(value)), drop)
    pq.write_table(pa.table({name: column[kept] for name, column in columns.items()}), path)


def edit_progress(root: Path, **columns: object) -> None:
    path = root / "sarm_progress.parquet"
    table = pq.read_table(path)
    for name, change in columns.items():
        place = table.column_names.index(name)
        table = table.set_column(place, name, pa.array(change(table[name].to_numpy().copy())))
    pq.write_table(table, path)


def test_the_lab_says_who_keeps_their_weight(dataset: Path, tmp_path: Path) -> None:
    before = (dataset / "sarm_progress.parquet").read_bytes()
    figure = tmp_path / "lab.png"
    run = milepost("weigh", dataset, "--chunk-size", 20, "--kappa", 0.05, "--figure", figure)
    assert run.returncode == 0, run.stderr
    for words in (
        "failure: giving_up",
        "success: hesitating",
        "Other kappas",
        "(now)",
        "lightest episodes",
        "recommended: --chunk-size 20",
    ):
        assert words in run.stdout
    assert "--sample_weighting.kappa=0.05" in run.stdout
    assert f"progress_path={dataset / 'sarm_progress.parquet'}" in run.stdout
    assert "stand still" in run.stderr
    assert "ends are down-weighted" in run.stderr
    assert (dataset / "sarm_progress.parquet").read_bytes() == before
    assert figure.read_bytes()[:4] == (tmp_path / "lab_dropped.png").read_bytes()[:4] == b"\x89PNG"
    weights = SampleWeights.load(dataset / "weights.parquet")
    assert len(weights) == 744


def test_json_has_everything_and_the_recommendation_answers(dataset: Path) -> None:
    given = ("weigh", dataset, "--chunk-size", 20, "--kappa", 0.05, "--json")
    found = json.loads(milepost(*given).stdout)
    quality = {group["name"]: group for group in found["groups"]["quality"]}
    assert quality["success: expert"]["episodes"] == 4
    assert quality["failure: giving_up"]["mean_weight"] < quality["success: hesitating"]["mean_weight"] < 0.9
    assert found["recommended"] == {"chunk_size": 20, "end": "rescale", "ramp": "linear", "kappa_pace": 0.5, "statistics": "task"} or (
        found["recommended"] == {"chunk_size": 20, "end": "rescale", "ramp": "linear", "kappa_pace": 0.5}
    )
    assert [row["episode"] for row in found["episodes"]] == [0, 1, 2, 3, 4, 5]
    assert sum(row["frames"] for row in found["episodes"]) == 744
    assert [row["kappa"] for row in found["sweep"] if row["kappa"] == 0.05] == [0.05]
    better = json.loads(milepost("weigh", dataset, "--json", *found["recommended_flags"].split()).stdout)
    assert better["standing_still_weight"] < 0.1 < found["standing_still_weight"]
    assert better["last_tenth_weight"] > found["last_tenth_weight"] + 0.1
    assert not any("stand still" in line or "last tenth" in line for line in better["warnings"])


def test_other_options_are_said_not_to_be_lerobots(dataset: Path) -> None:
    run = milepost("weigh", dataset, "--chunk-size", 20, "--kappa-pace", 0.5, "--ramp", "linear", "--end", "rescale", "--smooth", 5)
    assert run.returncode == 0, run.stderr
    assert "docs/weights.md shows how its loop takes these" in run.stdout
    assert "1 x (now)" in run.stdout
    run = milepost("weigh", dataset, "--kappa-duration-s", 20, "--chunk-size", 20, "--fallback-weight", 0.5)
    kappa = float(run.stdout.split("--sample_weighting.kappa=")[1].split()[0])
    assert kappa == pytest.approx(20 / (open_dataset(dataset).fps * 20), rel=1e-4)
    assert """extra_params='{"fallback_weight": 0.5}'""" in run.stdout
    run = milepost("weigh", dataset, "--rule", "uniform", "--min-final", 0.5)
    assert run.returncode == 0, run.stderr
    assert SampleWeights.load(dataset / "weights.parquet")[600] == 0  # the failure is filtered


def made_with(path: Path) -> dict:
    return json.loads(pq.read_schema(path).metadata[b"milepost.rabc"])


@pytest.mark.parametrize(
    ("words", "changes"),
    [
        ((), {}),
        (("--smooth", 9), {"smooth": 9}),
        (("--ramp=hard", "--chunk_size", 20), {"ramp": "hard", "chunk_size": 20}),
        (("--kappa", 0.05), {"kappa": 0.05}),
        (("--kappa-duration-s", 12), {"kappa_duration_s": 12.0}),
    ],
)
def test_options_beside_the_preset_take_the_place_of_its_own(dataset: Path, words: tuple, changes: dict) -> None:
    run = milepost("weigh", "--preset", "study", dataset, *words)
    assert run.returncode == 0, run.stderr
    assert made_with(dataset / "weights.parquet") == dataclasses.asdict(RabcConfig.preset("study", **changes))


@pytest.mark.parametrize(
    ("words", "name"),
    [
        (("--kappa-quantile", 0.5), "--kappa-quantile"),
        (("--kappa_keep=0.5",), "--kappa-keep"),
        (("--awr-temperature", 0.1), "--awr-temperature"),
        (("--no-awr-centre",), "--awr-centre"),
        (("--rule", "awr"), "--rule awr"),
        (("--rule=awr", "--awr-max", 3), "--awr-max"),
    ],
)
def test_a_removed_option_is_answered_by_one_sentence(dataset: Path, words: tuple, name: str) -> None:
    run = milepost("weigh", dataset, *words)
    assert run.returncode == 2
    assert run.stderr == f"milepost weigh: {name} was removed: no study showed a gain. Use --preset study or --kappa\n"
    assert not (dataset / "weights.parquet").exists()


def test_a_preset_that_would_do_nothing_is_refused(dataset: Path) -> None:
    assert_refused(milepost("weigh", dataset, "--preset", "study", "--rule", "uniform"), "--preset study does nothing")


def test_weights_that_a_removed_option_made_are_still_read(dataset: Path) -> None:
    milepost("weigh", dataset, "--fallback-weight", 0.5)
    path = dataset / "weights.parquet"
    table = pq.read_table(path)
    old = made_with(path) | {"rule": "awr", "awr_scale": 2.0, "awr_centre": True, "kappa_quantile": 0.5}
    pq.write_table(table.replace_schema_metadata({**table.schema.metadata, b"milepost.rabc": json.dumps(old).encode()}), path)
    weights = SampleWeights.load(path)
    assert weights.fallback_weight == 0.5
    np.testing.assert_array_equal(weights[np.arange(5)], table["weight"].to_numpy()[:5])
    assert milepost("weigh", dataset).returncode == 0  # and `weigh` replaces them as its own


# Bad input


def test_a_file_of_another_dataset_is_refused(dataset: Path, tmp_path: Path) -> None:
    write_progress(tmp_path / "p.parquet", [np.linspace(0, 1, 100)] * 7)
    assert_refused(milepost("weigh", dataset, "--progress", tmp_path / "p.parquet"), "episode 6", "(0 to 5)", "another dataset")
    write_progress(tmp_path / "p.parquet", [np.linspace(0, 1, 100)] * 6)
    assert_refused(milepost("weigh", dataset, "--progress", tmp_path / "p.parquet"), "rows do not fit", "first index 100 (episode 1")
    milepost("label", dataset, "--model", "elapsed")
    rows = next((dataset / "data").rglob("*.parquet"))
    table = pq.read_table(rows)
    action = table["action"].to_pylist()
    action[0][0] += 1
    place = table.column_names.index("action")
    pq.write_table(table.set_column(place, table.schema.field("action"), pa.array(action, table.schema.field("action").type)), rows)
    assert_refused(milepost("weigh", dataset, "--progress", dataset / "elapsed_progress.parquet"), "fingerprint", "another dataset")


def test_missing_rows_are_counted(dataset: Path) -> None:
    curve = read_progress(dataset / "sarm_progress.parquet").values()
    lengths = np.bincount(read_progress(dataset / "sarm_progress.parquet").episode_index)
    curves = np.split(curve, np.cumsum(lengths)[:-1])
    write_progress(dataset / "sarm_progress.parquet", curves, drop=(3, 4, 200))
    run = milepost("weigh", dataset, "--fallback-weight", 0.5, "--chunk-size", 20)
    assert run.returncode == 0
    assert "without a row in the progress file: 3, each weighs 0.5" in run.stderr
    weights = SampleWeights.load(dataset / "weights.parquet")
    assert weights[[3, 4, 200]].tolist() == [0.5] * 3
    assert weights.missing == 3


def test_repeated_rows_wrong_heads_and_cameras_are_refused(dataset: Path) -> None:
    assert_refused(milepost("weigh", dataset, "--head-mode", "dense"), "progress_dense", "it has: progress_sparse")
    figure = ("--figure", dataset.parent / "lab.png")
    assert_refused(milepost("weigh", dataset, "--camera-key", "left", *figure), "no camera 'left'", "observation.images.top")
    edit_progress(dataset, index=lambda index: np.where(index == 5, 4, index), frame_index=lambda f: np.where(np.arange(744) == 5, 4, f))
    assert_refused(milepost("weigh", dataset), "row 4 stands in it twice", "progress_sparse")


def test_nothing_to_weigh_by_is_refused(dataset: Path) -> None:
    assert_refused(milepost("weigh", dataset, "--max-duration-s", 1), "every frame weighs 0")
    edit_progress(dataset, progress_sparse=lambda value: np.full(744, 0.25, np.float32))
    assert_refused(milepost("weigh", dataset), "progress is 0.25 in every frame")
    edit_progress(dataset, progress_sparse=lambda value: np.full(744, np.nan, np.float32))
    assert_refused(milepost("weigh", dataset), "no frame of the progress file has a progress")
    assert not (dataset / "weights.parquet").exists()


def test_wrong_options_are_refused_before_any_work(tmp_path: Path, dataset: Path) -> None:
    run = milepost("weigh", tmp_path / "nothing", "--kappa", -1)
    assert run.returncode == 2
    assert "kappa must be at least 0" in run.stderr + run.stdout
    assert_refused(milepost("weigh"), "--progress FILE")
    assert_refused(milepost("weigh", dataset, "--figure", tmp_path / "lab.bmp"), "ending in .png, .svg, .pdf")
    alone = ("weigh", "--progress", dataset / "sarm_progress.parquet")
    assert_refused(milepost(*alone, "--kappa-duration-s", 5), "fps")
    assert milepost(*alone, "--kappa-duration-s", 5, "--fps", 20).returncode == 0
    assert_refused(milepost(*alone, "--kappa-duration-s", 5, "--fps", -3), "frames per second must be above 0")
    assert_refused(milepost(*alone, "--fps", 20), "--fps does nothing")
    assert_refused(milepost("weigh", dataset, "--camera-key", "observation.images.top"), "does nothing without --figure")
    assert_refused(milepost(*alone, "--statistics", "task"), "give the dataset")


def test_a_progress_file_is_never_written_over(dataset: Path) -> None:
    mine, other = dataset / "sarm_progress.parquet", dataset / "elapsed_progress.parquet"
    assert milepost("label", dataset, "--model", "elapsed").returncode == 0
    before = mine.read_bytes(), other.read_bytes()
    alone = ("weigh", dataset, "--progress", mine)
    assert_refused(milepost(*alone, "--output-path", mine, "--overwrite"), "is the progress file itself")
    assert_refused(milepost(*alone, "--output-path", other), "was not written by milepost weigh")
    assert (mine.read_bytes(), other.read_bytes()) == before


def test_infinite_and_other_numbers_are_refused(dataset: Path) -> None:
    edit_progress(dataset, progress_sparse=lambda value: np.where(np.arange(744) == 7, np.inf, value).astype(np.float32))
    assert_refused(milepost("weigh", dataset), "is progress, from 0 to 1 or NaN, but 1 rows are not, first inf at index 7")
    edit_progress(dataset, progress_sparse=lambda value: value.astype(str))
    assert_refused(milepost("weigh", dataset), "'progress_sparse' should hold numbers")
    edit_progress(dataset, index=lambda index: index + 0.5)
    assert_refused(milepost("weigh", dataset), "'index' should hold whole numbers")


def test_weights_know_their_dataset(dataset: Path) -> None:
    assert milepost("weigh", dataset, "--chunk-size", 20).returncode == 0
    assert read_weights_file(dataset / "weights.parquet")[2]["dataset_fingerprint"] == open_dataset(dataset).fingerprint


def test_a_chunk_longer_than_every_episode_is_said(dataset: Path) -> None:
    run = milepost("weigh", dataset, "--chunk-size", 400)
    assert run.returncode == 0
    assert "longer than every episode" in run.stderr
    assert "over half of a usual episode" in milepost("weigh", dataset, "--chunk-size", 100).stderr


# The arithmetic of the lab


def weighed_of(curves: list[np.ndarray], **options: object) -> tuple[WeightResult, np.ndarray]:
    value = np.concatenate(curves)
    episode = np.repeat(np.arange(len(curves)), [len(c) for c in curves])
    return weigh(np.arange(len(value)), episode, value, config=RabcConfig(**options)), value


def test_groups_and_episodes_by_hand() -> None:
    weighed, _ = weighed_of([np.array([0.0, 0.5, 1.0]), np.array([1.0, 0.5])], chunk_size=1, kappa=0.1, ramp="hard")
    np.testing.assert_array_equal(weighed.weight, [1, 1, 0, 0, 0])
    good, bad = by_name(weighed, {0: "good", 1: "bad"})[::-1]
    assert (good.name, good.episodes, good.frames, good.zero, good.full, good.share) == ("good", 1, 3, 1 / 3, 2 / 3, 1.0)
    assert good.mean_weight == pytest.approx(2 / 3)
    assert (bad.mean_weight, bad.zero) == (0, 1)
    each = by_episode(weighed)
    np.testing.assert_allclose(each.mean, [2 / 3, 0])
    np.testing.assert_allclose(each.dropped, [1 / 3, 1])


def test_the_sweep_is_what_weighing_again_gives(rng: np.random.Generator) -> None:
    curves = [np.sort(rng.random(40)), rng.random(40)]
    weighed, value = weighed_of(curves, chunk_size=4, kappa=0.07)
    notes = {0: EpisodeInfo(success=True), 1: EpisodeInfo(success=False)}
    rows = sweep(weighed, notes)
    assert sum(row.kappa == 0.07 for row in rows) == 1
    for row in rows:
        again = weigh(weighed.index, weighed.episode_index, value, config=RabcConfig(4, kappa=row.kappa))
        assert row.mean_weight == pytest.approx(float(again.weight.mean()), abs=1e-6)
        assert (row.full, row.zero) == (again.full, again.zero)
        assert row.successes == pytest.approx(float(again.weight[:40].mean()), abs=1e-6)


def test_dropped_spans_are_the_longest_of_each_quality_first() -> None:
    up, still = np.linspace(0, 1, 20), np.full(9, 0.5)
    curves = [np.concatenate([up[:10], still, up[10:]]), np.concatenate([up[:10], still[:5], up[10:]]), np.linspace(1, 0, 30)]
    weighed, _ = weighed_of(curves, chunk_size=1, kappa=0.001, ramp="hard")
    notes = {0: EpisodeInfo(kind="pauses"), 1: EpisodeInfo(kind="pauses"), 2: EpisodeInfo(kind="fails")}
    spans = [(span.episode, span.stop - span.start) for span in dropped_spans(weighed, 5, notes)]
    assert spans == [(2, 30), (0, 8), (1, 4)]
    assert [span.episode for span in dropped_spans(weighed, 2, notes)] == [2, 0]


def test_noise_is_measured_and_answered(rng: np.random.Generator) -> None:
    curves = [np.linspace(0.25, 0.75, 200) for _ in range(20)]
    clean, _ = weighed_of(curves, chunk_size=20)
    value = clean_value = np.concatenate(curves)
    assert frame_noise(clean.index, clean.episode_index, clean_value) == pytest.approx(0, abs=1e-9)
    value = clean_value + rng.normal(0, 0.025, len(clean_value))
    noisy = weigh(clean.index, clean.episode_index, value, config=RabcConfig(20, kappa=0.025))
    found = diagnose(noisy, value)
    assert found.noise == pytest.approx(0.025, rel=0.1)
    assert smoothing_for(found, noisy.config) in range(5, 22, 2)
    advice = advise(noisy, found, [], {})
    assert "jitters" in " ".join(each.text for each in advice)
    assert recommended(noisy.config, advice).smooth == smoothing_for(found, noisy.config)


def test_a_starved_task_is_named() -> None:
    quick, slow = [np.linspace(0, 1, 40)] * 8, [np.linspace(0, 1, 400)] * 2
    weighed, value = weighed_of([*quick, *slow], chunk_size=10, kappa=0.2, ramp="hard")
    notes = {number: EpisodeInfo("quick" if number < 8 else "slow") for number in range(10)}
    tasks = by_name(weighed, {number: note.task for number, note in notes.items()})
    advice = advise(weighed, diagnose(weighed, value), tasks, notes)
    assert any("task 'slow'" in each.text for each in advice)
    config = recommended(weighed.config, advice)
    assert (config.statistics, config.kappa_pace, config.kappa) == ("task", 0.5, RabcConfig.kappa)
    assert flags(config).startswith("--chunk-size 10 ")


def test_clean_demonstrations_get_no_recommendation_once_paced() -> None:
    weighed, value = weighed_of([np.linspace(0, 1, n) for n in (90, 100, 110)], chunk_size=10, kappa_pace=0.5, ramp="linear", end="rescale")
    assert np.all(weighed.weight > 0.99)
    assert advise(weighed, diagnose(weighed, value), [], {}) == []


def test_figures_hold_any_weights(rng: np.random.Generator) -> None:
    """One lone frame, everything unknown but one episode, hundreds of episodes with long names, uniform weights."""
    for curves, options in (
        ([np.array([0.3]), np.array([0.1, 0.2])], {}),
        ([np.full(5, np.nan), np.linspace(0, 1, 30)], {"kappa_pace": 0.5}),
        ([rng.random(rng.integers(2, 90)) for _ in range(250)], {"rule": "uniform"}),
    ):
        weighed, _ = weighed_of(curves, chunk_size=5, **options)
        names = {number: f"kind {number % 40} {'long ' * 30}$x_1$" for number in range(len(curves))}
        rows = sweep(weighed, {}) if weighed.config.rule == "rabc" else []
        picture = AdviceView("title " * 80, weighed, rows, {"quality": by_name(weighed, names)}, list(range(len(curves))))
        assert png(advice_figure(picture)).startswith(b"\x89PNG")
    pictures = rng.integers(0, 255, (2, 20, 30, 3)).astype(np.uint8)
    span = DroppedSpan("a $title$", 10.0, 3, 5, np.linspace(0, 1, 9, dtype=np.float32), np.full(9, np.nan, np.float32), pictures, [3, 4])
    assert png(dropped_figure([span] * 2)).startswith(b"\x89PNG")
    assert figure_bytes(dropped_figure([span] * 2), "pdf").startswith(b"%PDF")
    assert span_frames(3, 5) == [3, 4]
    with pytest.raises(ValueError, match="no span"):
        dropped_figure([])


def test_a_dry_run_shows_the_report_and_writes_nothing(dataset: Path, tmp_path: Path) -> None:
    before = {path: path.read_bytes() for path in sorted(dataset.parent.rglob("*")) if path.is_file()}
    words = ("weigh", dataset, "--chunk-size", 10, "--output-path", tmp_path / "new.parquet", "--figure", tmp_path / "new.png")
    run = milepost(*words, "--dry-run")
    assert run.returncode == 0, run.stderr
    assert f"nothing is written, because of --dry-run; without it: {tmp_path / 'new.parquet'}, {tmp_path / 'new.png'}" in run.stdout
    assert json.loads(milepost(*words, "--dry-run", "--json").stdout)["path"] is None
    assert {path: path.read_bytes() for path in sorted(dataset.parent.rglob("*")) if path.is_file()} == before
    assert not list(tmp_path.glob("new*"))
