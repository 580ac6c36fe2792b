"""What a newcomer gets wrong in Python: each call is understood or answered with one sentence, each result prints in a few lines."""

import linecache
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jaxtyping
import numpy as np
import pytest

import milepost
from milepost.annotation import AskConfig
from milepost.core.calls import warn_user
from milepost.core.errors import DataWarning
from milepost.models import Tracking
from milepost.testing import chat_server, dot_episodes, write_dots

REPLY = (
    '{"subtasks": [{"name": "reach", "start": 0.0, "end": 0.5}, {"name": "carry", "start": 0.5, "end": 2.2}, '
    '{"name": "place", "start": 2.2, "end": 3.3}]}'
)
NAMES = ["reach", "carry", "place"]


@pytest.fixture(autouse=True)
def as_for_a_user(monkeypatch: pytest.MonkeyPatch) -> None:
    """The tests' own checks of types are off: a user does not have them."""
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)


@pytest.fixture
def dots(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> milepost.LeRobotDataset:
    """A dataset of six episodes with a progress file, in the working folder."""
    monkeypatch.chdir(tmp_path)
    write_dots("dots", dot_episodes(6, failing=2))
    dataset = milepost.open_dataset("dots")
    milepost.label(milepost.ElapsedModel(), dataset, "dots/elapsed_progress.parquet")
    Path("file").touch()
    return dataset


def test_a_path_stands_for_a_dataset(dots: milepost.LeRobotDataset) -> None:
    assert milepost.evaluate("dots").episodes
    assert milepost.evaluate(Path("dots"), "dots/elapsed_progress.parquet").episodes
    milepost.plot("dots", 0)
    assert milepost.render("dots", 0, "episode.mp4").is_file()
    assert milepost.export_page("dots", "review.html", episodes=0) == []


def test_one_name_stands_for_a_list(dots: milepost.LeRobotDataset) -> None:
    camera = dots.cameras[0]
    milepost.plot(dots, 0, heads="sparse")
    assert milepost.render(dots, 0, "episode.mp4", cameras=camera).is_file()
    assert milepost.open_dataset("dots", cameras=camera).cameras == (camera,)
    assert milepost.open_dataset("dots", episodes=3).episode_indices == (3,)
    assert AskConfig(camera).cameras == (camera,)


def test_positions_and_slices(dots: milepost.LeRobotDataset) -> None:
    assert [episode.index for episode in dots[1:3]] == [1, 2]
    assert [episode.index for episode in dots[::-1]] == [5, 4, 3, 2, 1, 0]
    assert dots[np.int64(-1)].index == 5
    assert len(dots[4:4]) == 0


MISTAKES: dict[str, tuple[Callable[[milepost.LeRobotDataset], object], type[Exception], str]] = {
    "no dataset": (lambda d: milepost.evaluate(d[0]), milepost.DataError, "expected a dataset of milepost.open_dataset.* got Episode"),
    "position": (lambda d: d[99], IndexError, "no episode at position 99; dots has 6, at positions 0 to 5"),
    "position of text": (lambda d: d["0"], milepost.DataError, "one episode is named by its number"),
    "episode of text": (lambda d: milepost.plot(d, "0"), milepost.DataError, "one episode is named by its number"),
    "episodes to open": (lambda d: milepost.open_dataset("dots", episodes=[0.5]), milepost.DataError, "episodes are numbers"),
    "episode to export": (
        lambda d: milepost.export_page(d, "r.html", episodes=99),
        milepost.DataError,
        "no episode 99; this dataset has",
    ),
    "episodes to export": (lambda d: milepost.export_page(d, "r.html", episodes="0-9"), milepost.DataError, "no episode 6"),
    "subtasks of text": (lambda d: milepost.annotate(d, None, "reach,lift", "a"), milepost.DataError, "subtasks is a list of names"),
    "head": (
        lambda d: milepost.annotate(d, None, NAMES, "a", head="foo"),
        milepost.DataError,
        "head must be 'sparse' or 'dense', got 'foo'",
    ),
    "rule": (
        lambda d: milepost.write_annotations("dots", {0: {"sparse": d[0].segments["sparse"]}}, rule="foo"),
        milepost.DataError,
        "rule must be 'finished' or 'lerobot', got 'foo'",
    ),
    "names of a head": (
        lambda d: milepost.write_annotations("dots", {0: {"sparse": d[0].segments["sparse"]}}, names={"foo": NAMES}),
        milepost.DataError,
        "a head in names must be 'sparse' or 'dense', got 'foo'",
    ),
    "no head": (lambda d: milepost.write_annotations("dots", {0: d[0].segments["sparse"]}), milepost.DataError, "by episode and by head"),
    "look": (lambda d: AskConfig(d.cameras, look="foo"), milepost.DataError, "look must be 'sheets' or 'frames', got 'foo'"),
    "removed option": (
        lambda d: milepost.RabcConfig(kappa_quantile=0.5),
        TypeError,
        r'^kappa_quantile was removed: no study showed a gain. Use RabcConfig.preset\("study"',
    ),
    "unknown option": (lambda d: milepost.RabcConfig(kapa=0.5), TypeError, "has no option 'kapa'; did you mean 'kappa'"),
    "removed option of a preset": (lambda d: milepost.RabcConfig.preset("study", awr_max=2), TypeError, "awr_max was removed"),
    "model": (lambda d: milepost.SARMConfig(n_obs_step=4), TypeError, "SARMConfig has no option 'n_obs_step'; did you mean 'n_obs_steps'"),
    "training": (
        lambda d: milepost.TrainConfig(batchsize=8),
        TypeError,
        "no option 'batchsize'; did you mean 'batch_size'",
    ),
    "tracking": (lambda d: Tracking(projects="p"), TypeError, "Tracking has no option 'projects'; did you mean 'project'"),
    "server": (lambda d: milepost.ServerConfig(url="http://x"), TypeError, "ServerConfig has no option 'url'.* It has: "),
    "asking": (lambda d: AskConfig(("top",), frame=3), TypeError, "AskConfig has no option 'frame'; did you mean 'frames'"),
    "vlm": (lambda d: milepost.TOPRewardConfig(vlm="x"), TypeError, "TOPRewardConfig has no option 'vlm'"),
    "no such device": (
        lambda d: milepost.train(d, "sarm", preset="small", steps=1, device="gpu"),
        milepost.DataError,
        "there is no device 'gpu'; use cpu, cuda or cuda:1",
    ),
    "video into no folder": (lambda d: milepost.render(d, 0, "no/e.mp4"), milepost.DataError, "no is not there; make it first"),
    "video into a file": (lambda d: milepost.render(d, 0, "file/e.mp4"), milepost.DataError, "file is no folder"),
    "page into a folder": (lambda d: milepost.export_page(d, "dots"), milepost.DataError, "dots is a folder; give the name of a file"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_gets_one_sentence(name: str, dots: milepost.LeRobotDataset) -> None:
    call, kind, words = MISTAKES[name]
    with pytest.raises(kind, match=words) as caught:
        call(dots)
    assert "\n" not in str(caught.value)


def test_a_gpu_that_is_not_there(dots: milepost.LeRobotDataset, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(milepost.DataError, match="device 'cuda': torch sees no GPU here; use device='cpu'"):
        milepost.train(dots, "sarm", preset="small", steps=1, device="cuda")


def test_nothing_is_left_of_a_label_into_a_folder(dots: milepost.LeRobotDataset) -> None:
    Path("out").mkdir()
    with pytest.raises(milepost.DataError, match="out is a folder; give the name of a file in it"):
        milepost.label(milepost.ElapsedModel(), dots, "out")
    assert not [path.name for path in Path().iterdir() if "partial" in path.name or path.name.startswith(".")]


def annotated(dataset: Any, replies: Callable[[int], str], **settings: Any) -> Any:
    """Returns what `annotate` says of a server with these replies, by the number of the question."""
    with chat_server() as server:
        server.text = lambda body: replies(len(server.bodies))
        model = milepost.RemoteChatModel(milepost.ServerConfig(server.url, "tiny"))
        try:
            return milepost.annotate(dataset, model, NAMES, "dots.annotations", config=AskConfig(dataset.cameras, tries=1), **settings)
        finally:
            model.close()


def test_annotate_says_what_was_refused(dots: milepost.LeRobotDataset) -> None:
    dataset = milepost.open_dataset("dots", episodes=[0, 1])
    with pytest.warns(DataWarning, match=r"1 of 2 episodes have no sparse annotation; `refused` .* Episode 1: .*no JSON"):
        result = annotated(dataset, lambda number: REPLY if number == 1 else "I cannot tell")
    assert (list(result), list(result.refused)) == ([0], [1])
    assert "no JSON" in result.refused[1]
    assert result == {0: dataset[0].segments["sparse"][:0] or result[0]}


def test_an_open_dataset_has_what_was_written(dots: milepost.LeRobotDataset) -> None:
    before = dots[0].segments["sparse"]
    result = annotated(dots[:1], lambda number: REPLY)
    assert milepost.write_annotations(dots, result, overwrite=True).episodes == {"sparse": 6}
    assert dots[0].segments["sparse"] == result[0] != before
    milepost.write_annotations("dots", {0: {"sparse": before}}, overwrite=True)
    assert dots[0].segments["sparse"] == result[0]
    dots.refresh()
    assert dots[0].segments["sparse"] == before


def test_a_table_has_its_models_name(dots: milepost.LeRobotDataset) -> None:
    table = milepost.label(milepost.ElapsedModel(), dots, "again.parquet")
    assert table.name == milepost.read_progress("again.parquet").name == "elapsed"
    made_by = milepost.progress.provenance(milepost.ElapsedModel(), dots, "dots/../dots")
    assert milepost.label(milepost.ElapsedModel(), dots, "named.parquet", made_by=made_by).name == "dots"
    legend = milepost.plot(dots, 0, table).findobj(lambda artist: getattr(artist, "get_text", str)() == "elapsed")
    assert legend
    assert set(milepost.evaluate(dots, table).scores) == {"elapsed (file)", "elapsed"}


def test_results_print_in_a_few_lines(dots: milepost.LeRobotDataset) -> None:
    table = milepost.read_progress("dots/elapsed_progress.parquet")
    weights = milepost.weigh(table.index, table.episode_index, table.values(), config=milepost.RabcConfig(chunk_size=5))
    evaluation = milepost.evaluate(dots)
    results = [dots, dots[0], table, table.progress(0, 33), weights, evaluation, milepost.validate("dots")]
    results += [milepost.SampleWeights.of(weights), next(iter(evaluation.summaries().values())), evaluation.episodes[0]]
    for result in results:
        assert len(repr(result).splitlines()) <= 9, repr(result)
        assert max(map(len, repr(result).splitlines())) <= 120, repr(result)
        assert str(result) == repr(result)
    assert repr(table.progress(0, 33)) == "Progress(episode=0, heads={'sparse': Curve(value=<float32 (33,), 0..1>)})"
    assert repr(evaluation).startswith("Evaluation of 6 episodes, truth: simulator\n")


def test_a_warning_points_at_the_users_line() -> None:
    with warnings.catch_warnings(record=True) as log:
        warnings.simplefilter("always")
        warn_user("directly")
        milepost.core.calls.names_of(warn_user(text) or text for text in ["through a call of ours"])
    assert [Path(each.filename).name for each in log] == ["test_first_mistakes.py"] * 2
    assert "warn_user" in linecache.getline(log[0].filename, log[0].lineno)


def test_ours_warn_through_one_function() -> None:
    """Which finds the user's line. Two files warn by themselves: by a callback that a caller may replace, and at an import."""
    source = Path(milepost.__file__).parent
    names = {path.relative_to(source).as_posix() for path in source.rglob("*.py") if "stacklevel=" in path.read_text()}
    assert names <= {"core/calls.py", "progress/labelling.py", "models/registry.py"}
