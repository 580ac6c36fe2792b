"""A dataset's own files, and a person's, are never replaced: whatever the verb, whatever the door, `--overwrite` or not."""

import hashlib
from collections.abc import Callable
from pathlib import Path

import jaxtyping
import numpy as np
import pytest

import milepost
from milepost.annotation import AskConfig
from milepost.cli.entry import main
from milepost.core import Curve
from milepost.sim import SimConfig
from milepost.testing import CAMERA, write_example

INSIDE = ("meta/info.json", "data/chunk-000/file-000.parquet", "meta/new.html")
CALLS: dict[str, Callable[[milepost.LeRobotDataset, str], object]] = {
    "label": lambda d, path: milepost.label(milepost.ElapsedModel(), d, path, overwrite=True),
    "export": lambda d, path: milepost.export_page(d, path, "dots/elapsed_progress.parquet"),
    "label --overwrite": lambda d, path: main(["label", "dots", "--model", "elapsed", "--output-path", path, "--overwrite"]),
    "weigh --overwrite": lambda d, path: main(["weigh", "dots", "--output-path", path, "--overwrite"]),
    "view --export-html": lambda d, path: main(["view", "dots", "--export-html", path]),
    "annotate --to-file": lambda d, path: main(["annotate", "dots", "--to-file", path, "--overwrite"]),
}


@pytest.fixture
def dots(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> milepost.LeRobotDataset:
    monkeypatch.chdir(tmp_path)
    return write_example("dots")


@pytest.fixture
def unchecked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # what users see: the type checks are of the tests only


def contents(root: Path) -> dict[str, str]:
    return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(root.rglob("*")) if path.is_file()}


@pytest.mark.parametrize("path", INSIDE)
@pytest.mark.parametrize("name", CALLS)
def test_no_output_lands_among_a_datasets_own_files(name: str, path: str, dots: milepost.LeRobotDataset) -> None:
    before = contents(Path("dots"))
    if name in ("label", "export"):
        with pytest.raises(milepost.DataError, match="whose own files are never replaced"):
            CALLS[name](dots, f"dots/{path}")
    else:
        assert CALLS[name](dots, f"dots/{path}") == 2
    assert contents(Path("dots")) == before


def test_a_video_does_not_replace_a_datasets(dots: milepost.LeRobotDataset) -> None:
    (video,) = Path("dots/videos").rglob("*.mp4")
    before = video.read_bytes()
    with pytest.raises(milepost.DataError, match="whose own files are never replaced"):
        milepost.render(dots, 0, video, "dots/elapsed_progress.parquet")
    assert video.read_bytes() == before


@pytest.mark.parametrize("folder", [".", "dots"])
def test_a_models_card_replaces_nobodys_readme(folder: str, dots: milepost.LeRobotDataset) -> None:
    Path(folder, "README.md").write_text("mine")
    with pytest.raises(milepost.DataError, match=r"README.md"):
        milepost.train(dots, folder, preset="small", steps=2, keep_features=False)
    assert Path(folder, "README.md").read_text() == "mine"


def test_frames_are_named_by_numbers_a_mask_or_a_slice(dots: milepost.LeRobotDataset) -> None:
    camera = dots[0].camera(CAMERA)
    mask = np.zeros(len(camera), dtype=bool)
    mask[[3, 7]] = True
    np.testing.assert_array_equal(camera[mask], camera[np.array([3, 7])])
    np.testing.assert_array_equal(camera[2:5], camera[np.array([2, 3, 4])])
    with pytest.raises(IndexError, match="one entry for each of the"):
        camera[mask[:5]]


@pytest.mark.parametrize("text", ["0-", "3-", "-2"])
def test_a_range_without_an_end_is_refused(text: str, dots: milepost.LeRobotDataset) -> None:
    with pytest.raises(ValueError, match="rising ranges"):
        milepost.open_dataset("dots", episodes=text)


SEGMENTS = (milepost.Segment("reach", 0, 20), milepost.Segment("carry", 20, 33))


def test_annotations_that_are_there_are_replaced_only_when_asked(dots: milepost.LeRobotDataset) -> None:
    before, own = contents(Path("dots")), dots[0].segments["sparse"]
    for new in (SEGMENTS, ()):
        with pytest.raises(milepost.DataError, match=r"annotations of episodes 0, which would be replaced: give overwrite=True"):
            milepost.write_annotations(dots, {0: {"sparse": new}})
    assert contents(Path("dots")) == before
    milepost.write_annotations(dots, {0: {"sparse": own}})  # an equal one is no conflict
    milepost.write_annotations(dots, {0: {"sparse": SEGMENTS}}, expected={0: {"sparse": own}})
    assert dots[0].segments["sparse"] == SEGMENTS
    milepost.write_annotations(dots, {0: {"sparse": ()}}, overwrite=True)
    assert "sparse" not in dots[0].segments


@pytest.mark.parametrize("number", ["0", True, 0.0])
def test_an_episode_is_named_by_an_int(number: object, unchecked: None, dots: milepost.LeRobotDataset) -> None:
    with pytest.raises(milepost.DataError, match="the number of the episode, an int such as 0"):
        milepost.write_annotations(dots, {number: {"sparse": SEGMENTS}}, overwrite=True)  # type: ignore[dict-item]


@pytest.mark.parametrize("edges", [(3.7, 9), (0, float("nan")), ("3", 9)])
def test_a_segment_has_whole_frames(edges: tuple[int, int], unchecked: None) -> None:
    with pytest.raises(milepost.DataError, match="segment 'reach' must be whole numbers"):
        milepost.Segment("reach", *edges)


DRAWINGS: dict[str, tuple[str, Callable[[milepost.LeRobotDataset], object]]] = {
    "export": ("mine.html", lambda d: milepost.export_page(d, "mine.html", {}, episodes=[0])),
    "render": ("mine.mp4", lambda d: milepost.render(d, 0, "mine.mp4", "dots/elapsed_progress.parquet")),
    "view --export-html": ("mine.html", lambda d: main(["view", "dots", "--export-html", "mine.html", "--episodes", "0"])),
    "render in the shell": ("progress_videos/episode_000000_progress.mp4", lambda d: main(["render", "dots", "--episodes", "0"])),
    "weigh --figure": ("mine.png", lambda d: main(["weigh", "dots", "--figure", "mine.png"])),
}


@pytest.mark.parametrize("name", DRAWINGS)
def test_a_file_of_a_persons_own_is_not_drawn_over(name: str, dots: milepost.LeRobotDataset, capsys: pytest.CaptureFixture[str]) -> None:
    path, call = Path(DRAWINGS[name][0]), DRAWINGS[name][1]
    path.parent.mkdir(exist_ok=True)
    path.write_text("mine")
    words = "is there already, and milepost did not make it of this dataset"
    if name in ("export", "render"):
        with pytest.raises(milepost.DataError, match=words):
            call(dots)
    else:
        assert call(dots) == 2
        assert words in " ".join(capsys.readouterr().err.split())
    assert path.read_text() == "mine"
    path.unlink()
    call(dots)
    call(dots)  # one's own is replaced
    assert path.stat().st_size > 1000


@pytest.mark.parametrize("height", [-1, 15, 4321, 100.5])
def test_a_video_has_a_height_that_can_be_drawn(height: int, unchecked: None, dots: milepost.LeRobotDataset) -> None:
    with pytest.raises(milepost.DataError, match="the height of the images must be"):
        milepost.render(dots, 0, "e.mp4", "dots/elapsed_progress.parquet", height=height)


def test_which_of_several_progress_files_is_taken_is_said(dots: milepost.LeRobotDataset) -> None:
    Path("dots/sarm_progress.parquet").write_bytes(Path("dots/elapsed_progress.parquet").read_bytes())
    words = "of 2 progress files sarm_progress.parquet is taken, as LeRobot does; also there: elapsed_progress.parquet"
    for call in (milepost.evaluate, lambda d: milepost.plot(d, 0)):
        with pytest.warns(milepost.core.errors.DataWarning, match=words):
            call(dots)


@pytest.mark.parametrize(
    "words",
    ["weigh dots", "evaluate dots", "copy dots --output-dir copied", "plot dots --num-visualizations 1", "render dots --episode 0"],
)
def test_every_verb_takes_the_file_that_lerobot_takes_and_says_so(
    words: str, dots: milepost.LeRobotDataset, capsys: pytest.CaptureFixture[str]
) -> None:
    """In one line, with the flag that chooses another; a name alone is looked for beside the dataset, as LeRobot's tools do."""
    Path("dots/sarm_progress.parquet").write_bytes(Path("dots/elapsed_progress.parquet").read_bytes())
    assert main(words.split()) in (0, 1)
    lines = [line for line in capsys.readouterr().err.splitlines() if "sarm_progress.parquet is taken, as LeRobot does" in line]
    assert len(lines) == 1
    assert "--progress" in lines[0]
    Path("dots/sarm_progress.parquet").write_bytes(b"damaged")
    again = words.replace("copied", "again").split()
    assert main([*again, "--progress-file", "elapsed_progress.parquet"]) in (0, 1), "named: the other one is not even opened"
    assert "is taken" not in capsys.readouterr().err


def test_weights_are_of_progress_and_whole_numbers(dots: milepost.LeRobotDataset, unchecked: None) -> None:
    table = milepost.read_progress("dots/elapsed_progress.parquet")
    index, episode, value, config = table.index, table.episode_index, table.values("sparse"), milepost.RabcConfig(chunk_size=5)
    with pytest.raises(milepost.DataError, match=r"progress is from 0 to 1, or NaN; \d+ rows are not"):
        milepost.weigh(index, episode, value * 2, config=config)
    with pytest.raises(milepost.DataError, match="index must be whole numbers"):
        milepost.weigh(index + 0.5, episode, value, config=config)


INTEGERS: dict[str, Callable[[object], object]] = {
    "chunk_size": lambda n: milepost.RabcConfig(chunk_size=n),  # type: ignore[arg-type]
    "steps": lambda n: milepost.train("dots", "model", preset="small", steps=n),
    "hidden_dim": lambda n: milepost.SARMConfig(hidden_dim=n),  # type: ignore[arg-type]
    "repeats": lambda n: AskConfig(("a",), repeats=n),  # type: ignore[arg-type]
    "retries": lambda n: milepost.ServerConfig("http://a", "m", retries=n),  # type: ignore[arg-type]
    "size": lambda n: SimConfig(size=n),  # type: ignore[arg-type]
}


@pytest.mark.parametrize("number", [2.5, 2.0, "2", True])
@pytest.mark.parametrize("name", INTEGERS)
def test_an_integer_of_a_config_is_an_int(name: str, number: object, dots: milepost.LeRobotDataset, unchecked: None) -> None:
    with pytest.raises(ValueError, match=rf"^{name} must be .*int.*, got|^{name} must be a whole number(, an int;|,) got"):
        INTEGERS[name](number)
    assert not Path("model").exists()


class Odd:
    """A model with any head."""

    def __init__(self, head: str, stages: tuple[str, ...] = ()) -> None:
        self.head, self.stages = head, stages

    def predict(self, episode: milepost.Episode) -> milepost.Progress:
        stage = np.full((episode.length, 2), 0.5, np.float32) if self.stages else None
        return milepost.Progress(episode.index, {self.head: Curve(np.zeros(episode.length, np.float32), stage, self.stages)})


def test_a_progress_file_has_heads_that_name_columns_and_distinct_stages(dots: milepost.LeRobotDataset) -> None:
    assert set(milepost.label(Odd("coarse"), dots, "own.parquet").heads) == {"coarse"}
    for head in ("a/b", "two words"):
        with pytest.raises(milepost.DataError, match="it must name a column: letters, digits and _"):
            milepost.label(Odd(head), dots, "p.parquet")
    with pytest.raises(milepost.DataError, match="the stage name 'reach' stands twice"):
        milepost.label(Odd("sparse", ("reach", "reach")), dots, "p.parquet")
    with pytest.raises(milepost.DataError, match="stages in names must be distinct"):
        milepost.write_annotations(dots, {0: {"sparse": SEGMENTS}}, names={"sparse": ["reach", "carry", "reach"]}, overwrite=True)
    assert not Path("p.parquet").exists()


SAID = {
    "label dots --model elapsed --device gpu": "there is no device 'gpu'; use cpu, cuda or cuda:1",
    "label dots --model elapsed --precision float16": "--precision float16 means nothing to the model 'elapsed': leave it at auto",
    "label dots --model elapsed --output-path /proc/x.parquet": "the folder /proc cannot be written to: no file can be made there",
    "label dots --model elasped": "did you mean 'elapsed'?",
    "weigh dots --preset stdy": "--preset takes study, got 'stdy'",
}


@pytest.mark.parametrize("command", SAID)
def test_a_mistake_is_answered_in_a_sentence(command: str, dots: milepost.LeRobotDataset, capsys: pytest.CaptureFixture[str]) -> None:
    try:
        code = main(command.split())
    except SystemExit as leaving:
        code = int(leaving.code or 0)
    assert code == 2
    assert SAID[command] in " ".join(capsys.readouterr().err.split())


def test_a_misspelt_option_is_guessed_once(dots: milepost.LeRobotDataset, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["label", "dots", "--model", "elapsed", "--overwite"])
    words = capsys.readouterr().err
    assert "did you mean --overwrite?" in words
    assert "Perhaps" not in words


def test_a_bare_name_looks_at_no_folder(dots: milepost.LeRobotDataset) -> None:
    Path("elapsed").mkdir()
    Path("elapsed/model.safetensors").write_bytes(b"something else")
    assert main(["label", "dots", "--model", "elapsed", "--output-path", "p.parquet"]) == 0
    assert milepost.read_progress("p.parquet").made_by["weights_sha256"] == ""


def test_a_run_has_the_same_settings_in_the_shell_and_in_python(dots: milepost.LeRobotDataset) -> None:
    milepost.train(dots, "model", preset="small", steps=2, batch_size=4, keep_features=False)
    assert main(["label", "dots", "--model", "model", "--output-path", "shell.parquet", "--no-cache", "--device", "cpu"]) == 0
    milepost.label(milepost.load_model("model"), dots, "python.parquet")
    shell, python = (milepost.read_progress(f"{name}.parquet").made_by for name in ("shell", "python"))
    assert shell["settings"] == python["settings"] != "{}"
