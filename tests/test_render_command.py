"""`milepost render` and the events of `milepost evaluate` end to end: LeRobot's own dataset in, films out, one line for what is refused."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from builders import TOP, WRIST, build_dataset, edit_parquet
from milepost.cli.entry import main
from milepost.core.types import Progress
from milepost.datasets.reader import open_dataset
from milepost.datasets.video import probe
from milepost.progress.store import ProgressStore
from milepost.weights.file import write_weights_file

DATA = Path(__file__).parent / "data"


def write_progress(root: Path, name: str = "sarm", unknown: tuple[int, int] = (0, 0), episodes: tuple[int, ...] | None = None) -> Path:
    dataset = open_dataset(root)
    store = ProgressStore(root / f"{name}_progress.parquet", {"dataset": dataset.name, "dataset_fingerprint": dataset.fingerprint})
    for number in dataset.episode_indices if episodes is None else episodes:
        value = np.linspace(0, 1, dataset.length(number), dtype=np.float32)
        value[slice(*unknown)] = np.nan
        store.add(Progress(number, value), dataset.row_range(number)[0])
    store.finish()
    return store.path


@pytest.fixture(scope="module")
def nails(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What LeRobot recorded, AV1 and two cameras, with its annotations and a progress file."""
    root = Path(shutil.copytree(DATA / "dataset_v3", tmp_path_factory.mktemp("render") / "nails", copy_function=shutil.copyfile))
    shutil.copytree(DATA / "dataset_v3_annotated" / "meta", root / "meta", dirs_exist_ok=True, copy_function=shutil.copyfile)
    write_progress(root)
    return root


def render(*words: object) -> int:
    return main(["render", *map(str, words)])


def refused(capsys: pytest.CaptureFixture[str], *words: object) -> str:
    assert render(*words) == 2
    err = capsys.readouterr().err.strip()
    assert len(err.splitlines()) == 1, err
    return err


def test_a_film_an_episode(nails: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "new" / "films"
    assert render(nails, "--episodes", "4-5", "--output-dir", out, "--gif") == 0
    names = [f"episode_00000{number}_progress.{kind}" for number in (4, 5) for kind in ("gif", "mp4")]
    assert sorted(path.name for path in out.iterdir()) == names
    dataset = open_dataset(nails)
    for number in (4, 5):
        info = probe(out / f"episode_00000{number}_progress.mp4")
        assert (info.codec, info.frames, info.width) == ("h264", dataset.length(number), 384)
        assert info.duration == pytest.approx(dataset.length(number) / dataset.fps)
    told = capsys.readouterr()
    assert f"videos: {out}" in told.out
    assert "episode 4 (1 of 2)" in told.err


def test_lerobots_words_for_it(nails: Path, tmp_path: Path) -> None:
    words = ("--episode", 2, "--progress-file", nails / "sarm_progress.parquet", "--camera-key", WRIST)
    assert render(nails, *words, "--output-dir", tmp_path) == 0
    assert [path.name for path in tmp_path.iterdir()] == ["episode_000002_progress.mp4"]


def test_pictures_in_parquet(tmp_path: Path) -> None:
    root = build_dataset(tmp_path / "data", cameras={TOP: "png", WRIST: "file"}, lengths=(9, 4)).root
    write_progress(root)
    assert render(root, "--camera-key", TOP, WRIST, "--output-dir", tmp_path / "films") == 0
    films = sorted((tmp_path / "films").iterdir())
    assert [probe(film).frames for film in films] == [9, 4]
    assert {probe(film).width for film in films} == {2 * 160 + 4}


def test_the_first_few_unless_all(nails: Path, tmp_path: Path) -> None:
    assert render(nails, "--num-visualizations", 2, "--output-dir", tmp_path / "few") == 0
    assert len([*(tmp_path / "few").iterdir()]) == 2
    root = build_dataset(tmp_path / "data", lengths=(3, 4, 5, 3, 4, 3)).root
    write_progress(root)
    assert render(root, "--episodes", "all", "--output-dir", tmp_path / "all") == 0
    assert len([*(tmp_path / "all").iterdir()]) == 6


def test_weights_and_a_second_model_make_the_film_higher_and_other(nails: Path, tmp_path: Path) -> None:
    dataset = open_dataset(nails)
    second = tmp_path / "other_progress.parquet"
    shutil.copyfile(nails / "sarm_progress.parquet", second)
    weights = tmp_path / "weights.parquet"
    made = {"dataset": dataset.name, "dataset_fingerprint": dataset.fingerprint}
    write_weights_file(weights, np.arange(dataset.total_frames), np.full(dataset.total_frames, 0.5, np.float32), made)
    first = nails / "sarm_progress.parquet"
    assert render(nails, "--episode", 1, "--output-dir", tmp_path / "plain") == 0
    assert render(nails, "--episode", 1, "--progress", first, second, "--weights", weights, "--output-dir", tmp_path / "full") == 0
    plain, full = (probe(tmp_path / name / "episode_000001_progress.mp4") for name in ("plain", "full"))
    assert full.height > plain.height
    assert full.frames == plain.frames


def test_unknown_frames_are_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = build_dataset(tmp_path / "data", lengths=(12,)).root
    write_progress(root, unknown=(3, 7))
    assert render(root, "--output-dir", tmp_path / "films") == 1
    assert "frames without progress in the videos: 4" in capsys.readouterr().err
    assert probe(tmp_path / "films" / "episode_000000_progress.mp4").frames == 12


def test_refused(nails: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "films"
    dataset = open_dataset(nails)
    assert "no camera 'left'; this dataset has: " + TOP in refused(capsys, nails, "--camera-key", "left", "--output-dir", out)
    assert "no episode 99" in refused(capsys, nails, "--episode", 99, "--output-dir", out)
    assert "numbers and rising ranges" in refused(capsys, nails, "--episode", "x", "--output-dir", out)
    assert "--height must be" in refused(capsys, nails, "--height", 3, "--output-dir", out)
    assert "at least 1" in refused(capsys, nails, "--num-visualizations", 0, "--output-dir", out)
    five = [tmp_path / f"{number}.parquet" for number in range(5)]
    assert "room for 4 curves, got 5" in refused(capsys, nails, "--progress", *five, "--output-dir", out)
    assert "no such file" in refused(capsys, nails, "--progress", five[0], "--output-dir", out)
    assert "no dense head" in refused(capsys, nails, "--head-mode", "dense", "--output-dir", out)
    other = build_dataset(tmp_path / "other", lengths=(50, 60, 70)).root
    theirs = write_progress(other)
    assert "made for another dataset ('other'" in refused(capsys, nails, "--progress", theirs, "--output-dir", out)
    weights = tmp_path / "weights.parquet"
    write_weights_file(weights, np.arange(9), np.ones(9, np.float32), {"dataset": "other", "dataset_fingerprint": "0" * 16})
    assert "made for another dataset ('other'" in refused(capsys, nails, "--weights", weights, "--output-dir", out)
    write_weights_file(weights, np.arange(9), np.ones(9, np.float32), {})
    start, stop = dataset.row_range(3)
    line = refused(capsys, nails, "--weights", weights, "--episode", 3, "--output-dir", out)
    assert f"no weight for episode 3 (rows {start} to {stop - 1})" in line
    assert not list(out.glob("*")) if out.exists() else True


def test_an_episode_the_file_has_not(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = build_dataset(tmp_path / "data", lengths=(5, 6, 7)).root
    write_progress(root, episodes=(0, 2))
    assert "no progress for any of these episodes" in refused(capsys, root, "--episode", 1, "--output-dir", tmp_path / "films")
    assert render(root, "--output-dir", tmp_path / "films") == 0
    assert sorted(path.name for path in (tmp_path / "films").iterdir()) == [f"episode_00000{n}_progress.mp4" for n in (0, 2)]


def test_without_cameras(nails: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = build_dataset(tmp_path / "data", lengths=(5,), cameras={}).root
    write_progress(root)
    assert "nothing to show" in refused(capsys, root, "--output-dir", tmp_path / "films")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_cannot_be_written(nails: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "closed").mkdir(mode=0o500)
    assert "cannot write" in refused(capsys, nails, "--output-dir", tmp_path / "closed" / "films")


def test_words_in_any_script(tmp_path: Path) -> None:
    root = build_dataset(tmp_path / "data", lengths=(4,)).root
    edit_parquet(
        root / "meta" / "tasks.parquet", lambda t: t.set_column(t.column_names.index("task"), "task", [["抽屉を開ける" * 40, "🤖"]])
    )
    write_progress(root)
    assert "抽屉" in open_dataset(root)[0].task
    assert render(root, "--output-dir", tmp_path / "films") == 0


def test_killed_in_the_middle_the_old_film_stays(nails: Path, tmp_path: Path) -> None:
    """A real process and a real signal; what it leaves has no film's name."""
    assert render(nails, "--episode", 1, "--output-dir", tmp_path) == 0
    film = tmp_path / "episode_000001_progress.mp4"
    before = film.read_bytes()
    script = (
        "import os, signal, milepost.figures.film.render as film\n"
        "real = film.Panel.draw\n"
        "def draw(self, frame, out):\n"
        "    real(self, frame, out)\n"
        "    if frame == 10: os.kill(os.getpid(), signal.SIGINT)\n"
        "film.Panel.draw = draw\n"
        "import sys; from milepost.cli.entry import main; sys.exit(main(sys.argv[1:]))"
    )
    words = ["render", str(nails), "--episode", "1", "--output-dir", str(tmp_path)]
    run = subprocess.run([sys.executable, "-c", script, *words], capture_output=True, text=True, check=False)
    assert run.returncode == 130, run.stderr
    assert [path.name for path in tmp_path.iterdir()] == [film.name]
    assert film.read_bytes() == before


# Events, by `milepost evaluate`


def test_evaluate_tells_what_happens_in_the_curves(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Episode 0 succeeds, and falls from 0.6 to 0.2; 1 fails and stops at a half; 2 succeeds in a straight line."""
    root = build_dataset(tmp_path / "data", lengths=(100, 100, 100), fps=10).root
    dataset = open_dataset(root)
    rise = np.linspace(0, 1, 100)
    fall = np.concatenate([np.linspace(0, 0.6, 50), np.linspace(0.2, 1, 50)])
    store = ProgressStore(root / "m_progress.parquet", {"dataset": dataset.name, "dataset_fingerprint": dataset.fingerprint})
    for number, value in enumerate((fall, np.minimum(rise, 0.5), rise)):
        store.add(Progress(number, value.astype(np.float32)), 100 * number)
    store.finish()
    assert main(["evaluate", str(root), "--json"]) == 0
    events = json.loads(capsys.readouterr().out)["events"]
    assert [(e["kind"], e["start"], e["stop"]) for e in events["0"]] == [("regression", 49, 51), ("retry", 49, 74)]  # 0.57 at frame 73
    assert [e["kind"] for e in events["1"]] == ["stall", "never_finished"]
    assert events["1"][1]["size"] == pytest.approx(0.5)
    assert events["2"] == []
    assert main(["evaluate", str(root)]) == 0
    words = " ".join(capsys.readouterr().out.split())
    assert "episodes with such events" in words
    assert "success 2 - 50 % 50 % - - -" in words
    assert "failure 1 100 % - - - 100 % -" in words


def test_the_files_read_are_as_they_were(nails: Path, tmp_path: Path) -> None:
    before = {path: path.read_bytes() for path in nails.rglob("*") if path.is_file()}
    assert render(nails, "--episode", 0, "--output-dir", tmp_path) == 0
    assert {path: path.read_bytes() for path in nails.rglob("*") if path.is_file()} == before
    assert pq.read_schema(nails / "sarm_progress.parquet").names[0] == "index"
