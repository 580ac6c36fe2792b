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
from milepost.cli.lerobot_forms import LeRobotOptionError, in_our_words
from milepost.cli.lerobot_options import POLICIES, REWARD_MODELS, options_of
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


MESSAGES = [line.split(" => ") for line in (DATA / "lerobot_refused.txt").read_text().splitlines() if line and not line.startswith("#")]


@pytest.mark.parametrize(("line", "words"), MESSAGES, ids=[line for line, _ in MESSAGES])
def test_what_has_no_counterpart_says_what_to_type(line: str, words: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_code(line.split()) == 2
    assert words in " ".join(capsys.readouterr().err.split())


def exit_code(arguments: list[str]) -> object:
    """Returns the exit code, which the parser of options gives by SystemExit."""
    try:
        return main(arguments)
    except SystemExit as leaving:
        return leaving.code


SAME_NAME = {"--output_dir", "--seed", "--batch_size", "--steps"}
"""Options of LeRobot's that `milepost train` has under the same name."""


def lerobots_own() -> tuple[set[str], dict[str, set[str]]]:
    """LeRobot's options of training as it names them itself, and the types of its models."""
    lines = [line for line in (DATA / "lerobot_train_options.txt").read_text().splitlines() if not line.startswith("#")]
    types = dict(line.split(": ") for line in lines if ": " in line)
    return {line for line in lines if ": " not in line}, {name: set(words.split()) for name, words in types.items()}


def test_every_option_of_lerobots_training_has_its_place_here() -> None:
    options, types = lerobots_own()
    assert options - SAME_NAME <= set(options_of("train"))
    assert types == {"policies": set(POLICIES), "reward models": set(REWARD_MODELS)}
    older = {
        "--dataset_repo_id",
        "--repo_id",
        "--eval_freq",
        "--config_path",
        "--optimizer.lr",
        "--reward_model.type",
        "--reward_model.path",
    }
    plugins = {f"--reward_model.{name}" for name in ("gap_s", "encoder", "window", "unfinished", "augmentation", "optimizer_lr")}
    known = {option for option in options_of("train") if not option.startswith("--policy.")}
    assert known - options == older - options | plugins


@pytest.mark.parametrize("option", sorted(lerobots_own()[0] - {"--output_dir", "--dataset.repo_id"}))
def test_an_option_of_lerobots_training_is_never_called_unknown(option: str) -> None:
    arguments = ["--dataset.repo_id=me/towels", "--output_dir=out", f"{option}=7"]
    problem, rest = taken_or_refused(arguments)
    assert "there is no option" not in problem
    assert rest is None or option in SAME_NAME or f"{option}=7" not in rest


def taken_or_refused(arguments: list[str]) -> tuple[str, list[str] | None]:
    """Returns why `milepost train` refuses these words, and what is left of them; or "" and its own words."""
    try:
        return "", in_our_words("train", arguments)[1]
    except LeRobotOptionError as error:
        return str(error), error.arguments


def test_an_option_that_is_off_is_left_out() -> None:
    words = [
        "--dataset.root=towels",
        "--dataset.streaming=false",
        "--env_eval_freq=9",
        "--eval_steps=50",
        "--reward_model.type=milepost_sarm",
    ]
    _, ours, remarks = in_our_words("train", words)
    assert ours == ["towels", "--eval-every", "50"]
    assert [remark.partition(" is ")[0] for remark in remarks] == ["--dataset.streaming", "--env_eval_freq"]


def test_a_command_that_is_refused_is_not_said_in_mileposts_words(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["train", "--dataset.repo_id=me/towels", "--output_dir=o", "--num_workers=4", "--steps=many"])
    error = capsys.readouterr().err
    assert "--steps takes a whole number, got 'many'" in error
    assert "in milepost's words" not in error


WRONG = {
    "train {} --model value --output-dir o --failure-frames -1": "--failure-frames must be at least 0, got -1",
    "train {} --output-dir o --steps -1": "--steps and --batch-size must be at least 1, got -1 and 32",
    "weigh {} --kappa -1": "milepost weigh: --kappa must be at least 0",
    "train {} --model value --output-dir o --window causal": "--window means nothing to a value model; it takes --members, --reduction,",
    "copy {0} --output-dir {0} --trim-idle both": "exists already and is not overwritten; remove it or choose another name",
    "advantage {0} --form lerobot --output-dir {0}/in": "which it would become a part of",
}


@pytest.mark.parametrize("line", WRONG)
def test_an_error_has_the_names_of_the_command_line(line: str, world: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_code(line.format(world / "towels").split()) == 2
    out, err = capsys.readouterr()
    assert WRONG[line] in " ".join(err.split())
    assert not out.strip(), "the plan is not printed before it is refused"


def test_the_modules_help_names_the_module() -> None:
    program = "milepost.rewards.topreward.compute_rabc_weights"
    shown = subprocess.run([sys.executable, "-m", program, "--help"], capture_output=True, text=True, check=False)
    assert f"\nusage: python -m {program} " in shown.stdout


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
