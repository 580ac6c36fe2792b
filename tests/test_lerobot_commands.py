"""LeRobot's own command lines and snippets: each does here what its counterpart does, or the message says what to type."""

import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tyro

from builders import TOP
from idle import resting_dataset
from milepost.cli.entry import PROGRAMS, joined_numbers, main
from milepost.cli.lerobot_forms import in_our_words
from milepost.datasets.reader import open_dataset
from milepost.models import options as model_options
from milepost.models.sarm.config import SARMConfig
from milepost.models.sarm.model import SARMModel
from milepost.progress.table import read_progress

DATA = Path(__file__).parent / "data"
LINES = [line for line in (DATA / "lerobot_commands.txt").read_text().splitlines() if line and not line.startswith("#")]


def parsed(verb: str, arguments: list[str]) -> object:
    """The verb's arguments as the command line gives them to it."""
    command = __import__(f"milepost.cli.{verb}", fromlist=["Args"])
    kind = command.Args
    if "model_options" in kind.__dataclass_fields__:
        kind = model_options.with_model(kind, arguments)
    return tyro.cli(kind, args=joined_numbers(command.rewritten(arguments) if hasattr(command, "rewritten") else arguments))


@pytest.mark.parametrize("line", LINES, ids=[f"{number} {line.split()[0]}" for number, line in enumerate(LINES)])
def test_each_command_is_its_counterpart(line: str) -> None:
    theirs, _, ours = line.partition(" => ")
    program, *arguments = shlex.split(theirs)
    expected_verb, *expected = shlex.split(ours)
    verb, words, _ = in_our_words(PROGRAMS.get(program, program), arguments)
    assert verb == expected_verb
    assert parsed(verb, words) == parsed(expected_verb, expected)


@pytest.mark.parametrize("verb", ["label", "plot", "train", "annotate", "render", "weigh"])
def test_our_own_words_stay_as_they_are(verb: str) -> None:
    words = ["towels", "--device", "cpu", "--output-dir", "out", "--steps=5", "--episodes", "0", "1", "--push-to-hub", "a/b"]
    assert in_our_words(verb, words) == (verb, words, [])


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small dataset."""
    root = tmp_path_factory.mktemp("lerobot")
    resting_dataset(root / "towels", ((4, 12, 4), (3, 14, 3)))
    return root


def test_a_model_is_trained_drawn_and_used_by_lerobots_lines(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    root = world / "towels"
    line = (
        f"--dataset.repo_id={root} --policy.type=sarm --policy.annotation_mode=single_stage --policy.image_key={TOP} --output_dir=out "
        "--batch_size=4 --steps=2 --wandb.enable=false --preset small --device cpu --holdout 0"
    )
    assert main(["train", *line.split()]) == 0
    err = capsys.readouterr().err
    assert f"in milepost's words: milepost train {root} --annotation-mode single_stage --image-key {TOP}" in err
    model = str(tmp_path / "out")
    program = ["-m", "milepost.rewards.sarm.compute_rabc_weights", "--dataset-repo-id", str(root), "--reward-model-path", model]
    drawn = subprocess.run(
        [sys.executable, *program, "--visualize-only", "--num-visualizations", "1", "--head-mode", "sparse", "--output-dir", "./sarm_viz"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert drawn.returncode == 0, drawn.stderr
    assert len(list(Path("sarm_viz").iterdir())) == 1
    assert not (root / "sarm_progress.parquet").exists(), "only drawn"
    labelled = subprocess.run(
        [sys.executable, *program, "--head-mode", "sparse", "--output-dir", "./both"], capture_output=True, text=True, check=False
    )
    assert labelled.returncode == 0, labelled.stderr
    assert len(read_progress(root / "sarm_progress.parquet").index) == open_dataset(root).total_frames
    assert len(list(Path("both").iterdir())) == 2, "five episodes are drawn, and there are two"
    words = f"--repo-id {root} --episode 0 --progress-file sarm_progress.parquet --gif"
    assert main(["render", *words.split()]) == 0
    assert sorted(path.suffix for path in Path("progress_videos").iterdir() if not path.name.startswith(".")) == [".gif", ".mp4"]


MESSAGES = {
    "train --dataset.repo_id=me/towels --policy.type=pi0 --sample_weighting.type=rabc": "milepost weigh DATASET --chunk-size CHUNK_SIZE",
    "train --dataset.repo_id=me/towels --policy.type=topreward": "milepost label DATASET --model topreward",
    "train --dataset.repo_id=me/towels --policy.type=sarm --policy.hidden_dim=9": "--policy.hidden_dim has no counterpart",
    "label --dataset-repo-id me/towels --policy.type=sarm": "--policy.type has no counterpart in milepost label",
    "compute_rabc_weights --dataset-repo-id me/towels": "is milepost label here, with the same options",
    "lerobot-train --policy.type=sarm": "is milepost train here, with the same options",
    "subtask_annotation.py --repo-id x": "is milepost annotate here",
    "create_progress_videos.py --repo-id x": "is milepost render here",
}


@pytest.mark.parametrize("line", MESSAGES)
def test_what_has_no_counterpart_says_what_to_type(line: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(line.split()) == 2
    assert MESSAGES[line] in " ".join(capsys.readouterr().err.split())


def test_an_upload_needs_a_name_for_a_folder(world: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["label", "--dataset-repo-id", str(world / "towels"), "--model", "elapsed", "--push-to-hub"]
    assert main(words) == 2
    assert "--output-repo-id OWNER/NAME" in capsys.readouterr().err


def test_the_file_is_uploaded_under_its_name(world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[tuple[str, str, str]] = []
    monkeypatch.setattr(
        "huggingface_hub.upload_file", lambda **told: sent.append((told["repo_id"], told["path_in_repo"], told["repo_type"]))
    )
    monkeypatch.setattr("milepost.datasets.hub.require_same_dataset", lambda *_: None)
    out = tmp_path / "elapsed_progress.parquet"
    words = (
        "--dataset-repo-id",
        world / "towels",
        "--model",
        "elapsed",
        "--output-path",
        out,
        "--push-to-hub",
        "--output-repo-id",
        "me/towels",
    )
    assert main(["label", *map(str, words)]) == 0
    assert sent == [("me/towels", "elapsed_progress.parquet", "dataset")]


def test_the_snippets_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    frames = np.random.default_rng(0).integers(0, 255, (6, 64, 64, 3), dtype=np.uint8)
    space = {"VLM": str(DATA / "qwen3vl_tiny"), "frames": frames, "task": "open the drawer"}
    exec((DATA / "lerobot_snippets.txt").read_text(), space)
    assert space["SARMModel"] is SARMModel
    assert space["SARMConfig"] is SARMConfig
