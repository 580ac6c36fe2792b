"""`milepost plot` end to end: a model or progress files in, pictures that agree with them out, one line for everything refused."""

import hashlib
import os
import shutil
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from matplotlib.figure import Figure

from builders import TOP, WRIST, build_dataset, edit_parquet
from milepost import figures as room
from milepost.cli.entry import main
from milepost.core.errors import DataWarning
from milepost.datasets.reader import open_dataset
from milepost.figures import style
from milepost.figures.formats import Format
from milepost.models.sarm.config import SARMConfig
from milepost.models.sarm.model import SARMModel
from milepost.models.topreward.config import TOPRewardConfig
from milepost.models.topreward.model import TOPRewardModel
from test_plots import areas, axes, captions, images, legend, line

DATA = Path(__file__).parent / "data"
SMALL = {
    "hidden_dim": 16, "num_layers": 1, "num_heads": 2, "n_obs_steps": 2, "max_rewind_steps": 0, "encoder": "pixels", "image_dim": 4,
    "text_dim": 4,
}  # fmt: skip
SPARSE, DENSE = ("reach the object", "move the object", "finish the task"), ("approach", "align", "grasp", "move", "release")
DUAL = SARMConfig(
    **SMALL, annotation_mode="dual", sparse_subtask_names=SPARSE, sparse_temporal_proportions=(0.3, 0.5, 0.2), dense_subtask_names=DENSE,
    dense_temporal_proportions=(0.2,) * 5, state_mean=(0.0,) * 7, state_std=(1.0,) * 7,
)  # fmt: skip


@pytest.fixture(scope="module")
def nails(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What LeRobot recorded, with its annotations."""
    root = Path(shutil.copytree(DATA / "dataset_v3", tmp_path_factory.mktemp("plot") / "nails", copy_function=shutil.copyfile))
    shutil.copytree(DATA / "dataset_v3_annotated" / "meta", root / "meta", dirs_exist_ok=True, copy_function=shutil.copyfile)
    return root


@pytest.fixture(scope="module")
def dual(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "dual"
    SARMModel(DUAL).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def progress(nails: Path, dual: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("progress") / "dual_progress.parquet"
    assert (
        main(
            [
                "label",
                str(nails),
                "--model",
                str(dual),
                "--head-mode",
                "both",
                "--episodes",
                "4-5",
                "--output-path",
                str(path),
                "--device",
                "cpu",
            ]
        )
        == 0
    )
    return path


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """The figures, as they go to disk."""
    figures: list[Figure] = []
    real = room.figure_bytes

    def keep(figure: Figure, form: Format) -> bytes:
        figures.append(figure)
        return real(figure, form)

    monkeypatch.setattr(room, "figure_bytes", keep)
    return figures


def tree(root: Path) -> dict[str, str]:
    return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in root.rglob("*") if path.is_file()}


def plot(*arguments: object) -> int:
    return main(["plot", *map(str, arguments)])


def test_a_models_pictures_and_nothing_else(nails: Path, dual: Path, tmp_path: Path, drawn: list[Figure]) -> None:
    before = tree(nails) | tree(dual)
    out = tmp_path / "new" / "viz"
    code = plot(nails, "--reward-model-path", dual, "--head-mode", "both", "--episodes", "4-5", "--output-dir", out, "--device", "cpu")
    assert code == 0
    assert sorted(path.name for path in out.iterdir()) == ["episode_000004_progress.png", "episode_000005_progress.png"]
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in out.iterdir())
    assert tree(nails) | tree(dual) == before
    assert [path.name for path in tmp_path.iterdir()] == ["new"]

    episode = open_dataset(nails).episode(4)
    said = SARMModel.from_pretrained(dual).predict(episode)
    dense = said.head("dense")
    figure = drawn[0]
    for frame, lines in captions(figure).items():
        assert lines[:2] == [f"{frame / 20:.2f} s, frame {frame}", f"sparse {said.value[frame]:.2f}"]
        assert f"dense {dense.value[frame]:.2f}" in lines
        joined = " ".join(lines)
        assert f"{said.stage[frame].argmax() + 1} {SPARSE[said.stage[frame].argmax()]}" in joined
        assert f"{dense.stage[frame].argmax() + 1} {DENSE[dense.stage[frame].argmax()]}" in joined
        np.testing.assert_array_equal(images(figure)[frame], episode.camera(TOP)[np.array([frame])][0])
    for head, one in (("sparse", said), ("dense", dense)):
        assert "truth (annotation)" in legend(axes(figure, f"{head} progress"))
        np.testing.assert_allclose(line(axes(figure, f"{head} progress"), "dual").get_ydata(), one.value, atol=1e-6)
        np.testing.assert_allclose(np.stack(list(areas(axes(figure, f"{head} stages")).values()), 1), one.stage, atol=1e-5)


@pytest.mark.parametrize("head", ["sparse", "dense"])
def test_a_file_is_drawn_as_its_model(nails: Path, dual: Path, progress: Path, head: str, tmp_path: Path, drawn: list[Figure]) -> None:
    common = ("--head-mode", head, "--output-dir", tmp_path, "--num-visualizations", 1)
    assert plot(nails, "--progress-file", progress, *common) == 0
    assert [path.name for path in tmp_path.iterdir()] == ["episode_000004_progress.png"], "the first that the file knows"
    assert plot(nails, "--model", dual, "--episodes", 4, *common, "--device", "cpu") == 0
    one, other = drawn
    assert captions(one) == captions(other)
    assert legend(axes(one, "progress")) == legend(axes(other, "progress"))
    for name, area in areas(axes(one, "stage probability")).items():
        np.testing.assert_array_equal(area, areas(axes(other, "stage probability"))[name])


def test_names_of_a_file_that_says_nothing(nails: Path, progress: Path, tmp_path: Path, drawn: list[Figure]) -> None:
    """The dataset's if there are as many; else numbers."""
    bare = tmp_path / "bare.parquet"
    table = pq.read_table(progress)
    pq.write_table(table.cast(pa.schema([field.remove_metadata() for field in table.schema])), bare)
    assert plot(nails, "--progress", bare, "--episodes", 4, "--output-dir", tmp_path / "a") == 0
    edit_parquet(bare, lambda table: table.drop_columns(["stage_sparse_2"]))
    assert plot(nails, "--progress", bare, "--episodes", 4, "--output-dir", tmp_path / "b") == 0
    assert list(areas(axes(drawn[0], "stage probability"))) == list(SPARSE)
    assert list(areas(axes(drawn[1], "stage probability"))) == [*SPARSE, "stage 1", "stage 2"]


def test_several_files_with_one_name(nails: Path, progress: Path, tmp_path: Path, drawn: list[Figure]) -> None:
    other = tmp_path / progress.name
    shutil.copyfile(progress, other)
    assert plot(nails, "--progress", progress, other, progress, "--episodes", 4, "--output-dir", tmp_path / "out") == 0
    names = [one.get_label() for one in axes(drawn[0], "progress").lines if not one.get_label().startswith("_")]
    assert ["".join(name.split()) for name in names] == [
        "truth(annotation)",
        *(f"{path.parent.name}/{path.stem.removesuffix('_progress')}" for path in (progress, other)),
    ]


def test_the_clock_and_the_other_camera(nails: Path, tmp_path: Path, drawn: list[Figure]) -> None:
    assert plot(nails, "--model", "elapsed", "--episodes", 4, "--camera-key", WRIST, "--output-dir", tmp_path) == 0
    episode = open_dataset(nails).episode(4)
    np.testing.assert_array_equal(images(drawn[0])[91], episode.camera(WRIST)[np.array([91])][0])
    assert captions(drawn[0])[91][1] == "progress 1.00"
    assert captions(drawn[0])[0][-1].endswith("(truth)")


def test_one_frame_and_no_camera(tmp_path: Path, drawn: list[Figure], capsys: pytest.CaptureFixture) -> None:
    """A clock says nothing of one frame: it is drawn, counted, and the exit code says so."""
    build_dataset(tmp_path / "bare", lengths=(1, 5), cameras={})
    assert plot(tmp_path / "bare", "--model", "elapsed", "--output-dir", tmp_path / "out") == 1
    assert "frames without progress in what was drawn: 1" in capsys.readouterr().err
    assert "elapsed: 1 of 1 frame has no progress" in drawn[0].texts[0].get_text()
    assert len(list((tmp_path / "out").iterdir())) == 2
    assert not images(drawn[1])


@pytest.mark.parametrize(("form", "head"), [("svg", b"<?xml"), ("pdf", b"%PDF-")])
def test_for_print(form: str, head: bytes, tmp_path: Path, drawn: list[Figure]) -> None:
    build_dataset(tmp_path / "one", lengths=(5,), cameras={TOP: "png"})
    assert plot(tmp_path / "one", "--model", "elapsed", "--format", form, "--width", 3.4, "--output-dir", tmp_path / "out") == 0
    assert [path.name for path in (tmp_path / "out").iterdir()] == [f"episode_000000_progress.{form}"]
    assert (tmp_path / "out" / f"episode_000000_progress.{form}").read_bytes().startswith(head)
    assert drawn[0].get_figwidth() == 3.4
    assert plot(tmp_path / "one", "--model", "elapsed", "--width", 2, "--output-dir", tmp_path / "out") == 2


def test_letters_without_a_font_are_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture, drawn: list[Figure]
) -> None:
    build_dataset(tmp_path / "one", lengths=(5,), cameras={})
    assert plot(tmp_path / "one", "--model", "elapsed", "--output-dir", tmp_path / "out") == 0
    assert "no font" not in capsys.readouterr().err
    monkeypatch.setattr("milepost.figures.style._charmap", lambda file: frozenset("abc"))
    style._font_with.cache_clear()
    try:
        assert plot(tmp_path / "one", "--model", "elapsed", "--output-dir", tmp_path / "out") == 0
    finally:
        style._font_with.cache_clear()
    said = capsys.readouterr().err
    assert said.count("no font here has the letters") == 1
    assert "boxes stand for them" in said


def test_every_task_is_named(tmp_path: Path, drawn: list[Figure]) -> None:
    build_dataset(tmp_path / "two", lengths=(5, 5), cameras={TOP: "png"})
    assert plot(tmp_path / "two", "--model", "elapsed", "--output-dir", tmp_path / "out") == 0
    assert [figure.texts[0].get_text() for figure in drawn] == [
        "episode 0: push the block (success)",
        "episode 1: lift the block (failure)",
    ]


def test_episodes_the_file_does_not_know(nails: Path, progress: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert plot(nails, "--progress", progress, "--episodes", "0,4", "--output-dir", tmp_path) == 1
    assert "what was drawn: 148" in capsys.readouterr().err
    assert len(list(tmp_path.iterdir())) == 2


def test_state_statistics_as_label_has_them(nails: Path, tmp_path: Path) -> None:
    SARMModel(SARMConfig(**SMALL, state_stats_from="")).save_pretrained(tmp_path / "bare")
    common = (nails, "--model", tmp_path / "bare", "--episodes", 4, "--output-dir", tmp_path / "out", "--device", "cpu")
    shutil.copyfile(DATA / "dataset_v3" / "meta" / "stats.json", nails / "meta" / "stats.json")
    with pytest.warns(DataWarning, match="no state statistics: taking those of nails"):
        assert plot(*common) == 0
    with warnings.catch_warnings():
        warnings.simplefilter("error", DataWarning)
        assert plot(*common, "--state-stats", DATA / "dataset_v3") == 0


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--model", "elapsed", "--progress", "{progress}"), ("--model or --progress",)),
        (("--model", "elapsed", "--num-visualizations", "0"), ("at least 1",)),
        (("--model", "elapsed", "--camera-key", "front"), ("front", TOP, WRIST)),
        (("--model", "elapsed", "--episodes", "99"), ("99", "0 to 5")),
        (("--model", "elapsed", "--head-mode", "dense"), ("elapsed has no dense head; it has: sparse",)),
        (("--model", "{single}", "--head-mode", "both"), ("has no dense head; it has: sparse",)),
        (("--model", "{out}"), ("no model at",)),
        (("--model", "{elsewhere}"), ("observation.images.front", TOP, WRIST)),
        (("--progress", "{clock}", "--head-mode", "dense"), ("clock.parquet has no dense head; it has: sparse",)),
        (("--progress", "{progress}", "--episodes", "0-3"), ("no progress for any of these episodes",)),
        (("--progress", "{foreign}"), ("made for another dataset", "'two'")),
        (("--progress", "{out}"), ("no such file",)),
        ((), ("none; make one with milepost label",)),
    ],
)
def test_refused_in_one_line(
    nails: Path, progress: Path, arguments: tuple[str, ...], words: tuple[str, ...], tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    places = {"progress": progress, "out": tmp_path / "out"} | {name: tmp_path / name for name in ("single", "elsewhere")}
    places |= {name: tmp_path / f"{name}.parquet" for name in ("clock", "foreign")}
    text = " ".join(arguments)
    if "{single}" in text:
        SARMModel(SARMConfig(**SMALL)).save_pretrained(places["single"])
    if "{elsewhere}" in text:
        SARMModel(SARMConfig(**SMALL, image_key="observation.images.front")).save_pretrained(places["elsewhere"])
    if "{clock}" in text:
        main(["label", str(nails), "--model", "elapsed", "--episodes", "4", "--output-path", str(places["clock"])])
    if "{foreign}" in text:
        build_dataset(tmp_path / "two", lengths=(148, 123), cameras={})
        main(["label", str(tmp_path / "two"), "--model", "elapsed", "--output-path", str(places["foreign"])])
    capsys.readouterr()
    given = [argument.format(**places) for argument in arguments]
    assert plot(nails, *given, "--output-dir", tmp_path / "out") == 2
    error = capsys.readouterr().err
    assert len(error.strip().splitlines()) == 1, error
    assert all(word in error for word in words), error
    assert not (tmp_path / "out").exists(), "nothing is made before everything is checked"


def test_rows_of_another_dataset(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    """A file that does not say what it was made for is found out by its rows."""
    for name, lengths in (("mine", (5, 6)), ("yours", (7, 6))):
        build_dataset(tmp_path / name, lengths=lengths, cameras={})
    path = tmp_path / "yours" / "elapsed_progress.parquet"
    main(["label", str(tmp_path / "yours"), "--model", "elapsed"])
    edit_parquet(path, lambda table: table.replace_schema_metadata(None))
    for episode in (0, 1):
        assert plot(tmp_path / "mine", "--progress", path, "--episodes", episode, "--output-dir", tmp_path / "out") == 2
        assert "do not fit mine" in capsys.readouterr().err


def test_a_full_disk_leaves_what_was_there(nails: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "episode_000005_progress.png").write_text("mine")
    real = room.figure_bytes

    def fill(figure: Figure, form: Format) -> bytes:
        if (tmp_path / "episode_000004_progress.png").exists():
            raise OSError(28, "No space left on device")
        return real(figure, form)

    monkeypatch.setattr(room, "figure_bytes", fill)
    assert plot(nails, "--model", "elapsed", "--episodes", "4-5", "--output-dir", tmp_path, "--overwrite") == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == ["episode_000004_progress.png", "episode_000005_progress.png"]
    assert (tmp_path / "episode_000005_progress.png").read_text() == "mine"


def test_no_display_is_needed(tmp_path: Path) -> None:
    """Also where the user's matplotlib is set to open windows."""
    build_dataset(tmp_path / "two", lengths=(5,), cameras={})
    env = {name: value for name, value in os.environ.items() if name not in ("DISPLAY", "WAYLAND_DISPLAY")} | {"MPLBACKEND": "TkAgg"}
    words = [
        sys.executable,
        "-m",
        "milepost",
        "plot",
        str(tmp_path / "two"),
        "--model",
        "elapsed",
        "--output-dir",
        str(tmp_path / "out"),
    ]
    run = subprocess.run(words, env=env, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["episode_000000_progress.png"]


def test_a_stride_is_drawn_where_it_looked(nails: Path, dual: Path, tmp_path: Path, drawn: list[Figure]) -> None:
    """Dots on the frames computed, lines and areas between them; the same from a file labelled with that stride."""
    common = ("--episodes", "4")
    assert plot(nails, "--model", dual, "--stride", 10, *common, "--output-dir", tmp_path / "model", "--device", "cpu") == 0
    file = tmp_path / "strided.parquet"
    assert main(["label", str(nails), "--model", str(dual), "--stride", "10", "--output-path", str(file), *common]) == 0
    assert plot(nails, "--progress", file, *common, "--output-dir", tmp_path / "file") == 0
    assert len(drawn) == 2
    for figure in drawn:
        lines = [line for axes in figure.axes for line in axes.lines if line.get_marker() == "o"]
        np.testing.assert_allclose(max((line.get_xdata() for line in lines), key=len), np.array([*range(0, 91, 10), 91]) / 20)
    assert plot(nails, "--progress", file, "--stride", 2, "--output-dir", tmp_path / "x") == 2


def test_a_zero_shot_models_score_is_under_its_progress(nails: Path, tmp_path: Path, drawn: list[Figure]) -> None:
    """Progress always reaches 1; the score is drawn as it is, at the frames that were asked about, and captions name only those."""
    model = TOPRewardModel(TOPRewardConfig(vlm_name=str(DATA / "qwen3vl_tiny")))
    model.save_pretrained(tmp_path / "model")
    assert plot(nails, "--model", tmp_path / "model", "--episodes", "4", "--output-dir", tmp_path / "plots", "--device", "cpu") == 0
    said = model.predict(open_dataset(nails).episode(4))
    asked = np.flatnonzero(~np.isnan(said.main.signals["logprob"].values))
    (score,) = axes(drawn[0], "log P (nats)").lines
    np.testing.assert_allclose(score.get_xdata(), asked / 20)
    np.testing.assert_allclose(score.get_ydata(), said.main.signals["logprob"].values[asked], atol=1e-5)
    assert set(captions(drawn[0])) <= set(asked.tolist())
    assert plot(nails, "--model", tmp_path / "model", "--stride", 2, "--output-dir", tmp_path / "plots") == 2
