"""Episodes that cannot be read have no progress: who names them, what they weigh, how they are drawn; their number is said once."""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

from builders import build_dataset
from milepost.core import DataWarning
from milepost.figures.style import UNKNOWN, texts_of
from milepost.figures.weights import AdviceView, advice_figure, weights_figure
from milepost.weights import RabcConfig, WeightResult, diagnose, drawback, weigh
from milepost.weights.advice import EpisodeInfo, advise
from test_advantage_command import add_progress, labels_of, true_curve
from test_advantage_command import written as written  # a fixture
from test_cli import milepost

BAD = (2, 5)
LENGTHS = (30, 30, 20, 30, 30, 20, 30)


def episode_axes(figure: Figure) -> Axes:
    return next(ax for ax in figure.findobj(Axes) if ax.get_title(loc="left") == "Weight of every episode")


def weighed_of(**options: object) -> WeightResult:
    """Returns the weights of seven episodes, two of them without progress."""
    curves = [np.full(length, np.nan) if number in BAD else np.linspace(0, 1, length) for number, length in enumerate(LENGTHS)]
    episode = np.repeat(np.arange(len(LENGTHS)), LENGTHS)
    return weigh(np.arange(len(episode)), episode, np.concatenate(curves), config=RabcConfig(chunk_size=5, **options))


@pytest.fixture
def dots(written: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Returns a dataset whose progress file knows nothing of two episodes."""
    monkeypatch.chdir(tmp_path)
    root = Path(shutil.copytree(written, tmp_path / "dots"))
    add_progress(root, "sarm", lambda each: np.full(each.length, np.nan) if each.index in BAD else true_curve(each))
    return root


def test_the_library_names_them_and_what_they_weigh() -> None:
    words = r"2 episodes .*: 2, 5\. Each frame of them weighs 1.*--fallback-weight 0.*copy --without 2,5 \(.* import --without 2,5\)"
    with pytest.warns(DataWarning, match=words) as caught:
        result = weighed_of()
    assert len(caught) == 1
    assert caught[0].filename == __file__
    assert result.unknown_episodes.tolist() == list(BAD)
    assert (result.weight[result.is_unknown] == 1).all()


@pytest.mark.parametrize("options", [{"fallback_weight": 0.0}, {"max_duration_s": 0.1}])
@pytest.mark.filterwarnings("error")
def test_nothing_is_warned_of_where_they_weigh_nothing(options: dict) -> None:
    episode = np.repeat(np.arange(2), (30, 20))
    value = np.concatenate([np.linspace(0, 1, 30), np.full(20, np.nan)])
    result = weigh(np.arange(50), episode, value, config=RabcConfig(chunk_size=5, **options), fps=10.0 if len(options) == 1 else None)
    assert not result.weight[30:].any()


@pytest.mark.filterwarnings("ignore:no frame of 2 episodes")
def test_frames_of_other_episodes_are_counted_by_themselves() -> None:
    result = weighed_of()
    value = np.where(result.is_unknown, np.nan, 0.5)
    assert not any("of the frames" in each.text for each in advise(result, diagnose(result, value), [], {}))


def test_weigh_names_them_once_and_recommends_no_weight(dots: Path) -> None:
    run = milepost("weigh", dots, "--chunk-size", 10)
    assert run.returncode == 0, run.stderr
    assert run.stderr.count("no frame of 2 episodes has a delta, because the progress is unknown there: 2, 5. ") == 1
    assert "--fallback-weight 0" in next(line for line in run.stdout.splitlines() if line.startswith("recommended: "))
    report = json.loads(milepost("weigh", dots, "--chunk-size", 10, "--json").stdout)
    assert report["recommended"]["fallback_weight"] == 0
    assert sum("--without 2,5" in line for line in report["warnings"]) == 1
    assert "Each frame of them weighs 0" in milepost("weigh", dots, "--chunk-size", 10, "--fallback-weight", 0).stderr


@pytest.mark.parametrize("verb", ["copy", "import"])
def test_the_advice_names_the_command_that_works_for_this_version(verb: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    root = build_dataset(tmp_path / "set", version="v3.0" if verb == "copy" else "v2.1").root
    add_progress(root, "sarm", lambda each: np.full(each.length, np.nan) if each.index == 1 else np.linspace(0, 1, each.length))
    command = f"milepost {verb} set --without 1 --output-dir NEW"
    assert command in milepost("weigh", "set", "--chunk-size", 5).stderr
    assert milepost(*command.split()[1:]).returncode == 0


def test_weigh_names_episodes_without_any_row(dots: Path) -> None:
    path = dots / "sarm_progress.parquet"
    table = pq.read_table(path)
    pq.write_table(table.filter(np.asarray(table["episode_index"]) != 3), path)
    stderr = milepost("weigh", dots, "--chunk-size", 10).stderr
    assert "no row at all is there of 1 episode: 3; --fallback-weight 0" in stderr


def test_advantage_names_them(dots: Path) -> None:
    warnings = labels_of(dots, "--horizon", "end", "--dry-run")["warnings"]
    assert any(
        line.startswith("no frame of 2 episodes has a known advantage: 2, 5;") and "milepost copy --without" in line for line in warnings
    )


@pytest.mark.filterwarnings("ignore:no frame of 2 episodes")
def test_the_figure_names_the_episodes_and_has_the_unknown_ones_in_grey() -> None:
    result = weighed_of()
    order = [4, 6, 0, 1, 3, 2, 5]
    figure = advice_figure(AdviceView("", result, [], {}, order))
    axes = episode_axes(figure)
    assert [label.get_text() for label in axes.get_yticklabels()] == list(map(str, order))
    image = axes.get_images()[0]
    assert np.ma.getmaskarray(image.get_array()).all(axis=1).tolist() == [number in BAD for number in order]
    assert to_hex(image.get_cmap().get_bad()) == UNKNOWN.lower()
    texts = texts_of(figure)
    assert texts.count("progress unknown (weight 1)") == 2
    assert "1 or more" not in texts
    assert "1" in texts


def test_of_many_episodes_some_are_labelled() -> None:
    number = np.repeat(np.arange(150), 4)
    result = weigh(np.arange(600), number, np.tile(np.linspace(0, 1, 4), 150), config=RabcConfig(chunk_size=2))
    figure = advice_figure(AdviceView("", result, [], {}, list(range(149, -1, -1))))
    axes = episode_axes(figure)
    labels = [int(label.get_text()) for label in axes.get_yticklabels()]
    assert 5 < len(labels) < 25
    assert np.array_equal(axes.get_yticks() - 0.5, 149 - np.array(labels))


def test_more_than_one_is_named_where_there_is_more() -> None:
    result = weigh(np.arange(9), np.zeros(9, int), np.linspace(0, 1, 9), config=RabcConfig(chunk_size=2))
    assert "1 or more" not in texts_of(weights_figure(result))
    result.weight[:3] = 2
    assert "1 or more" in texts_of(weights_figure(result))


def test_an_episode_of_unknown_outcome_says_so() -> None:
    assert EpisodeInfo("push").quality == "outcome unknown"


def test_a_recommendation_says_what_it_makes_worse() -> None:
    curve = np.linspace(0, 1, 60)
    now = diagnose(weigh(np.arange(60), np.zeros(60, int), curve, config=RabcConfig(chunk_size=20)), curve)
    assert drawback(now, now) == ""
    now = dataclasses.replace(now, still_weight=0.1, end_weight=0.5)
    words = "with the recommended options frames that stand still weigh 0.40 on average, more than the 0.10 now"
    assert drawback(now, dataclasses.replace(now, still_weight=0.4)) == words
    words = "with the recommended options the last tenth of an episode weighs 0.20, less than the 0.50 now"
    assert drawback(now, dataclasses.replace(now, end_weight=0.2)) == words
    assert drawback(now, dataclasses.replace(now, still_weight=0.0, end_weight=0.9)) == ""


def spoil_state(root: Path, number: int) -> None:
    """Makes the state of an episode NaN, so that it cannot be read."""
    for path in sorted((root / "data").rglob("*.parquet")):
        table = pq.read_table(path, partitioning=None)
        owner = table["episode_index"].to_pylist()
        rows = zip(table["observation.state"].to_pylist(), owner, strict=True)
        state = [[float("nan")] * len(values) if each == number else values for values, each in rows]
        place, field = table.column_names.index("observation.state"), table.schema.field("observation.state")
        pq.write_table(table.set_column(place, field, pa.array(state, field.type)), path)


def test_advantage_leaves_out_an_episode_that_cannot_be_read(dots: Path) -> None:
    add_progress(dots, "sarm", true_curve)
    spoil_state(dots, 2)
    refused = milepost("advantage", dots, "--horizon", "end", "--dry-run")
    assert refused.returncode == 2
    assert "leave the episode out with --episodes" in refused.stderr
    assert labels_of(dots, "--horizon", "end", "--episodes", "0-1,3-7")["warnings"][0].startswith("1 episode without labels")


def test_the_number_of_a_damaged_episode_is_said_once(dots: Path) -> None:
    add_progress(dots, "sarm", true_curve)
    spoil_state(dots, 2)
    for words in (["evaluate", dots], ["plot", dots, "--output-dir", "figures"]):
        stderr = milepost(*words).stderr
        assert "episode 2 is left out: " in stderr
        assert not re.search(r"episode (\d+)\D.*: episode \1\b", stderr)


def cut_video(root: Path) -> None:
    """Cuts the video of episode 1, as a download that broke off does."""
    path = sorted((root / "videos").rglob("*.mp4"))[1]
    content = path.read_bytes()
    path.unlink()
    path.write_bytes(content[: len(content) // 2])


def test_copy_names_the_damaged_episodes_and_how_to_leave_them_out(dots: Path) -> None:
    add_progress(dots, "sarm", true_curve)
    spoil_state(dots, 2)
    assert milepost("weigh", dots, "--chunk-size", 10).returncode == 0
    run = milepost("copy", dots, "--weights", dots / "weights.parquet", "--output-dir", "new")
    assert run.returncode == 1
    assert "episode 2 is damaged, and the copy has it as it is: observation.state " in run.stderr
    assert "to leave damaged episodes out: --without 2, with another --output-dir" in run.stderr
    again = milepost("copy", dots, "--weights", dots / "weights.parquet", "--without", 2, "--output-dir", "without")
    assert (again.returncode, "damaged" in again.stderr) == (0, False)
    both = milepost("copy", dots, "--without", 5, "--output-dir", "other")
    assert "--without 2,5" in both.stderr


@pytest.mark.parametrize("form", ["column", "lerobot"])
def test_every_verb_that_copies_names_the_damaged_episodes(dots: Path, form: str) -> None:
    add_progress(dots, "sarm", true_curve)
    spoil_state(dots, 2)
    others = "0-1,3-5"
    runs = [milepost("advantage", dots, "--episodes", others, "--form", form, "--output-dir", "labels")]
    runs.append(milepost("advantage", dots, "--episodes", others, "--form", form, "--output-dir", "json", "--json"))
    if form == "lerobot":
        runs.append(milepost("annotate", dots, "--episodes", others, "--to-language", "subtasks"))
    for run in runs:
        assert run.returncode == 1, run.stderr
        said = run.stdout + run.stderr
        assert "episode 2 is damaged, and the copy has it as it is: observation.state " in said
        assert f"this makes a dataset without damaged episodes: milepost copy {dots} --without 2 --output-dir NEW" in said


def test_copy_of_an_older_version_names_import(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    root = build_dataset(tmp_path / "set", version="v2.1").root
    cut_video(root)
    assert milepost("label", "set", "--model", "elapsed").returncode in (0, 1)
    run = milepost("copy", "set", "--output-dir", "new")
    assert run.returncode == 1
    assert "is damaged, and the copy has it as it is: " in run.stderr
    assert "milepost import " in run.stderr
    assert "set --without 1 --output-dir NEW" in run.stderr
