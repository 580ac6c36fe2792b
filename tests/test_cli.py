"""The command line: frozen flags, light help, one clear message and exit code for every way things go wrong.

`python tests/test_cli.py --write` renews the record of flags after a deliberate change.
"""

import contextlib
import dataclasses
import errno
import io
import json
import os
import resource
import shutil
import subprocess
import sys
from pathlib import Path

import huggingface_hub
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from huggingface_hub.utils import filter_repo_objects
from safetensors.numpy import load_file

from milepost.cli.entry import VERBS, command_of, explain, help_text, main
from milepost.core.files import count_noun
from milepost.progress.table import read_progress

DATA = Path(__file__).parent / "data"
RECORD = DATA / "command_line.json"
FIXTURE = DATA / "dataset_v3"


def flags() -> dict[str, dict[str, str]]:
    """Verb -> flag -> default, as the code has them."""
    return {verb: flags_of(command_of(verb).Args) for verb in VERBS}


def flags_of(arguments: type) -> dict[str, str]:
    """Those of a group among them, for on the command line they have no prefix."""
    found: dict[str, str] = {}
    for field in dataclasses.fields(arguments):
        if dataclasses.is_dataclass(field.default_factory):
            found |= flags_of(field.default_factory)
        elif dataclasses.is_dataclass(field.default):
            found |= flags_of(type(field.default))
        else:
            required = field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
            found[field.name] = "required" if required else str(field.default)
    return found


def milepost(*arguments: object) -> subprocess.CompletedProcess:
    """Run a verb in this process, so that the shapes of its arrays are checked too."""
    out, err = io.StringIO(), io.StringIO()
    words = [str(argument) for argument in arguments]
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            code = main(words)
        except SystemExit as leaving:
            code = int(leaving.code or 0)
    return subprocess.CompletedProcess(words, code, out.getvalue(), err.getvalue())


def milepost_process(*arguments: object, **options: object) -> subprocess.CompletedProcess:
    """Run a verb as a user does."""
    words = [sys.executable, "-m", "milepost", *map(str, arguments)]
    return subprocess.run(words, capture_output=True, text=True, check=False, **options)


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    return Path(shutil.copytree(FIXTURE, tmp_path / "dataset"))


def assert_refused(run: subprocess.CompletedProcess, *words: str) -> None:
    """One clear message, no traceback, a non-zero exit."""
    assert run.returncode == 2, run.stderr
    assert "Traceback" not in run.stderr
    assert len(run.stderr.strip().splitlines()) <= 2, run.stderr
    assert all(word in run.stderr for word in words), run.stderr


def test_the_command_line_is_frozen() -> None:
    assert flags() == json.loads(RECORD.read_text()), "renew with: python tests/test_cli.py --write"


def test_every_verb_says_what_it_does() -> None:
    for verb in VERBS:
        assert command_of(verb).__doc__
        assert verb in help_text()


@pytest.mark.parametrize("verb", VERBS)
def test_help_of_every_verb(verb: str) -> None:
    run = milepost(verb, "--help")
    assert run.returncode == 0
    assert "usage" in run.stdout


def test_no_verb_and_wrong_verb() -> None:
    assert milepost_process().returncode == 0
    run = milepost_process("labbel")
    assert run.returncode == 2
    assert "no verb 'labbel'" in run.stderr


def test_the_journey_on_lerobots_own_dataset(dataset: Path, tmp_path: Path) -> None:
    """train -> label -> weigh -> evaluate -> plot on a dataset LeRobot recorded, with its annotations."""
    meta = DATA / "dataset_v3_annotated" / "meta"
    shutil.copytree(meta, dataset / "meta", dirs_exist_ok=True)
    model = tmp_path / "model"
    small = ("--preset", "small", "--annotation-mode", "sparse_only", "--steps", 3, "--device", "cpu")
    run = milepost("train", dataset, "--output-dir", model, *small, "--gap-s", 0.2, "--holdout", 0.2)
    assert run.returncode == 0, run.stderr
    assert "1 episode left out, no sparse subtask annotation: 3" in run.stderr
    assert {p.name for p in model.iterdir()} == {"config.json", "model.safetensors", "README.md", "evaluation.json", "log.jsonl"}
    config = json.loads((model / "config.json").read_text())
    assert config["sparse_subtask_names"] == ["reach the object", "move the object", "finish the task"]
    np.testing.assert_allclose(np.cumsum(config["sparse_temporal_proportions"]), [0.334442, 0.817066, 1], atol=1e-5)

    run = milepost("label", dataset, "--model", model)
    assert run.returncode == 0, run.stderr
    progress = read_progress(dataset / "sarm_progress.parquet")
    assert len(progress.index) == 744
    assert progress.metadata["milepost.model_path"] == str(model)

    run = milepost("weigh", dataset, "--chunk-size", 10, "--figure", tmp_path / "w.png", "--json")
    assert run.returncode == 0, run.stderr
    assert json.loads(run.stdout)["frames"] == 744
    assert pq.read_table(dataset / "weights.parquet").num_rows == 744
    assert (tmp_path / "w.png").read_bytes().startswith(b"\x89PNG")

    run = milepost("evaluate", dataset)
    assert run.returncode == 0, run.stderr
    assert "against: annotation" in run.stdout
    run = milepost("plot", dataset, "--episodes", "1", "--output-dir", tmp_path / "plots")
    assert run.returncode == 0, run.stderr
    assert [p.name for p in (tmp_path / "plots").iterdir()] == ["episode_000001_progress.png"]


def test_a_model_trained_for_lerobot_is_one_it_loads(dataset: Path, tmp_path: Path) -> None:
    """Its own checkpoints' format, through the encoder's folder; both folders say the same of an episode."""
    shutil.copytree(DATA / "dataset_v3_annotated" / "meta", dataset / "meta", dirs_exist_ok=True)
    out, top = tmp_path / "model", "observation.images.top"
    given = ("--for-lerobot", "--annotation-mode", "dual", "--preset", "small", "--steps", 2, "--device", "cpu", "--gap-s", 0.25)
    assert_refused(milepost("train", dataset, "--output-dir", out, *given, "--encoder", DATA / "clip_tiny"), "one camera", top)
    run = milepost("train", dataset, "--output-dir", out, *given, "--encoder", DATA / "clip_tiny", "--image-key", top)
    assert run.returncode == 0, run.stderr
    assert "episodes learnt from: 4, to choose the checkpoint: 0, held out: 1" in run.stdout
    config = json.loads((out / "lerobot" / "config.json").read_text())
    assert (config["type"], config["frame_gap"], config["num_dense_stages"]) == ("sarm", 5, 5)
    assert config["normalization_mapping"]["STATE"] == "MEAN_STD"
    (beside,) = (out / "lerobot").glob("*normalizer*.safetensors")
    normaliser, statistics = load_file(beside), json.loads((dataset / "meta/stats.json").read_text())["observation.state"]
    for name in ("mean", "std"):  # what LeRobot would take from the dataset itself, whichever episodes were learnt from
        np.testing.assert_array_equal(normaliser[f"observation.state.{name}"], np.array(statistics[name], np.float32))
    assert json.loads((out / "config.json").read_text())["state_mean"] == statistics["mean"]
    for name in ("model", "model/lerobot"):
        more = ("--head-mode", "both", "--episodes", 1, "--output-path", tmp_path / "said" / f"{name.replace('/', '-')}.parquet")
        (tmp_path / "said").mkdir(exist_ok=True)
        run = milepost("label", dataset, "--model", tmp_path / name, "--encoder", DATA / "clip_tiny", *more)
        assert run.returncode == 0, run.stderr
    ours, theirs = (read_progress(path) for path in sorted((tmp_path / "said").iterdir()))
    for head in ("sparse", "dense"):
        np.testing.assert_allclose(ours.values(head), theirs.values(head), atol=1e-5)


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (("plto", "set"), "no verb 'plto'; did you mean plot?"),
        (
            ("train", "set", "--outputdir", "out"),
            "no option --outputdir; did you mean --output-dir?",
        ),  # and it is required
        (("plot", "set", "--epsodes", "3"), "no option --epsodes; did you mean --episodes?"),
        (("plot", "set", "--no-no-cache"), "no option --no-no-cache; did you mean --no-cache?"),
        (("label", "set", "--modle=elapsed"), "no option --modle; did you mean --model?"),
        (("quark",), "no verb 'quark'\n"),
    ],
)
def test_a_misspelt_word_gets_a_guess(words: tuple[str, ...], hint: str) -> None:
    run = milepost(*words)
    assert run.returncode == 2
    assert hint in run.stderr


@pytest.mark.parametrize("verb", ["train", "label", "plot", "render", "view", "evaluate", "annotate"])
def test_help_shows_both_forms_of_episodes(verb: str) -> None:
    said = " ".join(milepost(verb, "--help").stdout.replace("│", " ").split())
    assert "0-9,12 or 0 1 2" in said
    assert "--no-no-" not in said


def test_the_clock_needs_no_model(dataset: Path) -> None:
    run = milepost("label", dataset, "--model", "elapsed", "--episodes", "0,2-3", "--json")
    assert run.returncode == 0, run.stderr
    assert json.loads(run.stdout)["episodes"] == 3
    assert set(read_progress(dataset / "elapsed_progress.parquet").episode_index.tolist()) == {0, 2, 3}


def test_kappa_too_low_is_said(tmp_path: Path) -> None:
    rows = 200
    table = {
        "index": np.arange(rows),
        "episode_index": np.repeat([0, 1], rows // 2),
        "frame_index": np.tile(np.arange(rows // 2), 2),
        "progress_sparse": np.tile(np.linspace(0, 1, rows // 2, dtype=np.float32), 2),
    }
    pq.write_table(pa.table(table), tmp_path / "p.parquet")
    run = milepost("weigh", "--progress", tmp_path / "p.parquet", "--chunk-size", 50, "--kappa", 0.0001)
    assert run.returncode == 0
    assert "plain behaviour cloning" in run.stderr
    assert "--kappa 0.3" in run.stderr


@pytest.mark.parametrize("verb", ["train", "label", "evaluate", "plot", "weigh"])
def test_no_such_dataset(verb: str, tmp_path: Path) -> None:
    extra = {"train": ("--output-dir", tmp_path / "m"), "label": ("--model", "elapsed")}.get(verb, ())
    assert_refused(milepost(verb, tmp_path / "nothing", *extra), "nothing")


def test_not_a_dataset(tmp_path: Path) -> None:
    assert_refused(milepost("label", tmp_path, "--model", "elapsed"), "info.json")


def test_wrong_camera_lists_the_right_ones(dataset: Path, tmp_path: Path) -> None:
    run = milepost("train", dataset, "--output-dir", tmp_path / "m", "--image-key", "observation.images.front")
    assert_refused(run, "observation.images.front", "observation.images.top", "observation.images.wrist")


def test_no_model_there(dataset: Path, tmp_path: Path) -> None:
    assert_refused(milepost("label", dataset, "--model", tmp_path / "none"), "no model at")


def test_training_with_validation_and_an_upload(dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The Hub is asked for the repository named, once, after the card is there, and given card, config and weights alone."""
    asked: list[dict] = []

    def upload_folder(**options: object) -> None:
        names = [str(p.relative_to(options["folder_path"])) for p in Path(options["folder_path"]).rglob("*") if p.is_file()]
        asked.append({**options, "sent": set(filter_repo_objects(names, allow_patterns=options["allow_patterns"]))})

    monkeypatch.setattr(huggingface_hub, "create_repo", lambda repo, **options: f"https://hub/{repo}")
    monkeypatch.setattr(huggingface_hub, "upload_folder", upload_folder)
    shutil.copytree(DATA / "dataset_v3_annotated" / "meta", dataset / "meta", dirs_exist_ok=True)
    model = tmp_path / "model"
    quick = ("--preset", "small", "--gap-s", 0.2, "--steps", 4, "--eval-every", 2, "--batch-size", 4, "--device", "cpu")
    quick = (*quick, "--annotation-mode", "sparse_only")
    run = milepost("train", dataset, "--output-dir", model, *quick, "--validation", 0.4, "--holdout", 0.2, "--push-to-hub", "ada/sarm")
    assert run.returncode == 0, run.stderr
    assert "uploaded: https://hub/ada/sarm" in run.stdout
    assert [(a["repo_id"], a["sent"]) for a in asked] == [("ada/sarm", {"README.md", "config.json", "model.safetensors"})]
    assert (model / "last" / "model.safetensors").exists()
    record = json.loads((model / "evaluation.json").read_text())
    assert not set(record["held_out"]) & set(record["validation_episodes"])
    card = (model / "README.md").read_text()
    assert f"those after step {record['training']['kept_step']} of 4" in card
    assert f"on {count_noun(len(record['validation_episodes']), 'episode')} kept aside" in card
    assert all(f"`{setting}`" in card for setting in ("steps=4", "batch_size=4", "lr=0.001", "seed=0", "encoder=pixels"))


def test_what_train_refuses_before_any_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    where = ("train", tmp_path / "nothing", "--output-dir", tmp_path / "m")
    assert_refused(milepost(*where, "--steps", 3, "--epochs", 2), "--steps 3", "--epochs 2", "give one")
    assert_refused(milepost(*where, "--push-to-hub", "not a name"), "not a name")
    monkeypatch.setitem(sys.modules, "wandb", None)
    assert_refused(milepost(*where, "--log-to", "wandb"), "pip install wandb")
    assert not (tmp_path / "m").exists()


def test_a_truncated_video_is_said_and_the_other_episodes_are_learnt_from(dataset: Path, tmp_path: Path) -> None:
    video = next(dataset.glob("videos/*top/**/*.mp4"))
    video.write_bytes(video.read_bytes()[:20_000])
    run = milepost("train", dataset, "--output-dir", tmp_path / "m", "--preset", "small", "--steps", 2, "--batch-size", 4)
    assert run.returncode == 1
    lost = [line for line in run.stderr.splitlines() if "is left out: video" in line]
    assert [line.split(" is ")[0] for line in lost] == ["episode 0", "episode 1"]
    assert all(video.name in line for line in lost)
    record = json.loads((tmp_path / "m" / "evaluation.json").read_text())
    assert not {0, 1} & {*record["train_episodes"], *record["validation_episodes"]}


def test_nothing_is_written_if_no_picture_can_be_read(dataset: Path, tmp_path: Path) -> None:
    for video in dataset.glob("videos/*top/**/*.mp4"):
        video.write_bytes(video.read_bytes()[:200])
    run = milepost("train", dataset, "--output-dir", tmp_path / "m", "--preset", "small")
    assert_refused(run, "file-0", ".mp4")
    assert not (tmp_path / "m" / "model.safetensors").exists()


def test_a_corrupt_table_is_said(dataset: Path) -> None:
    table = next(dataset.glob("data/**/*.parquet"))
    table.write_bytes(b"PAR1 nothing good PAR1")
    run = milepost("label", dataset, "--model", "elapsed")
    assert run.returncode == 1
    assert f"{table.name} is damaged or truncated" in run.stderr
    curve = read_progress(dataset / "elapsed_progress.parquet")
    lost = np.unique(curve.episode_index[np.isnan(curve.values())]).tolist()
    assert 0 < len(lost) < 6
    for other in dataset.glob("data/**/*.parquet"):
        other.write_bytes(b"PAR1 nothing good PAR1")
    assert_refused(milepost("label", dataset, "--model", "elapsed", "--overwrite"), "damaged or truncated")


def test_nan_state_is_said(dataset: Path) -> None:
    path = next(dataset.glob("data/**/*.parquet"))
    table = pq.read_table(path)
    rows = table.column("observation.state").to_pylist()
    rows[7][2] = float("nan")
    place = table.schema.get_field_index("observation.state")
    pq.write_table(table.set_column(place, table.schema.field(place), pa.array(rows, table.schema.field(place).type)), path)
    run = milepost("label", dataset, "--model", "elapsed")
    assert run.returncode == 1
    assert "is left unknown: the robot state is NaN or infinite in 1 frame, first at frame 7, channel 2" in run.stderr


def test_a_trained_model_is_not_overwritten(dataset: Path, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    assert_refused(milepost("train", dataset, "--output-dir", tmp_path), "--overwrite")
    assert (tmp_path / "config.json").read_text() == "{}"


def test_progress_of_another_model_is_not_overwritten(dataset: Path) -> None:
    shutil.copy(DATA / "rabc" / "progress.parquet", dataset / "elapsed_progress.parquet")
    before = (dataset / "elapsed_progress.parquet").read_bytes()
    assert_refused(milepost("label", dataset, "--model", "elapsed"), "made with another model")
    assert (dataset / "elapsed_progress.parquet").read_bytes() == before


def test_weights_replace_only_weights(tmp_path: Path) -> None:
    shutil.copy(DATA / "rabc" / "progress.parquet", tmp_path / "p.parquet")
    assert milepost("weigh", "--progress", tmp_path / "p.parquet").returncode == 0
    assert milepost("weigh", "--progress", tmp_path / "p.parquet", "--kappa", 0.1).returncode == 0
    (tmp_path / "mine.parquet").write_text("mine")
    assert_refused(milepost("weigh", "--progress", tmp_path / "p.parquet", "--output-path", tmp_path / "mine.parquet"), "--overwrite")
    assert (tmp_path / "mine.parquet").read_text() == "mine"


def test_wrong_episodes(dataset: Path) -> None:
    assert_refused(milepost("label", dataset, "--model", "elapsed", "--episodes", "4-x"), "0-9,12")
    assert_refused(milepost("label", dataset, "--model", "elapsed", "--episodes", "99"), "99")


def test_a_full_disk_loses_nothing(dataset: Path) -> None:
    """A limit on file size stands in for a full disk: the write fails half-way in the same place."""
    run = milepost_process(
        "label", dataset, "--model", "elapsed",
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (1500, 1500)),
    )  # fmt: skip
    assert_refused(run, "no space left")
    assert not (dataset / "elapsed_progress.parquet").exists()
    again = milepost("label", dataset, "--model", "elapsed")
    assert again.returncode == 0
    assert len(read_progress(dataset / "elapsed_progress.parquet").index) == 744


def test_a_read_only_folder_is_said_before_any_work(dataset: Path) -> None:
    """Root may write anywhere, so the folder is made impossible to write into in a way that holds for root: it is not a folder."""
    if os.geteuid() == 0:
        run = milepost("label", dataset, "--model", "elapsed", "--output-path", "/proc/elapsed.parquet")
        assert run.returncode == 2
        assert "Traceback" not in run.stderr
        return
    dataset.chmod(0o555)
    run = milepost("label", dataset, "--model", "elapsed")
    dataset.chmod(0o755)
    assert_refused(run, "read-only or not permitted")


def test_errors_of_the_system_are_explained() -> None:
    assert "read-only" in explain(OSError(errno.EROFS, "Read-only file system", "/data/x"))
    assert "no space left" in explain(OSError(errno.ENOSPC, "No space left on device", "/data/x"))


if __name__ == "__main__" and "--write" in sys.argv:
    RECORD.write_text(json.dumps(flags(), indent=2) + "\n")
