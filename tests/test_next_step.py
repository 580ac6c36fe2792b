"""What to type next: on the front page, at the end of `milepost info`, and in a shell."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from milepost.cli.entry import VERBS, main
from milepost.cli.next_step import JOURNEY, Have, next_step
from milepost.datasets import open_dataset, validate
from milepost.testing import write_example


@pytest.fixture
def dots(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    write_example(tmp_path / "dots")
    return tmp_path / "dots"


def accepted(command: str) -> bool:
    """Whether a verb's parser takes this command."""
    from milepost.cli.entry import _parser

    program, verb, *words = shlex.split(command)
    parse, own = _parser(verb, words)
    parse(args=own)
    return program == "milepost"


@pytest.mark.parametrize("command", [command for _, command in JOURNEY])
def test_every_command_of_the_journey_is_taken(command: str) -> None:
    assert accepted(command)


@pytest.mark.parametrize(
    ("have", "words"),
    [
        (Have("t"), "info t"),
        (Have("t", annotated=()), "--annotation-mode single_stage"),
        (Have("t", annotated=("sparse",)), "--annotation-mode sparse_only"),
        (Have("t", annotated=("sparse", "dense")), "--annotation-mode dual"),
        (Have("my towels", ("p.parquet",)), "view 'my towels'"),
        (Have("t", ("p.parquet",), ("weights.parquet",)), "copy t --weights t/weights.parquet"),
        (Have("t", ("p.parquet",), faulty=True, damaged=(3, 7)), "copy t --without 3,7"),
        (Have("my t", faulty=True, damaged=(3, 7), version="v2.1"), "import 'my t' --without 3,7 --output-dir NEW"),
        (Have("t", faulty=True), "info t --deep"),
    ],
)
def test_what_comes_next(have: Have, words: str) -> None:
    command, why = next_step(have)
    assert words in command
    assert why
    assert accepted(command)


def test_a_dataset_of_the_hub_is_downloaded_before_it_is_imported() -> None:
    command, _ = next_step(Have("lerobot/old", faulty=True, damaged=(3,), version="v2.0"))
    first, second = command.split(" && ")
    assert first == "hf download lerobot/old --repo-type dataset --local-dir old"
    assert accepted(second)


def test_the_front_page_looks_at_the_folder(dots: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    assert "this folder is" not in capsys.readouterr().out
    monkeypatch.chdir(dots)
    assert main([]) == 0
    assert "this folder is a LeRobot dataset; next: milepost view ." in capsys.readouterr().out


def test_info_ends_with_a_command_that_works(dots: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (dots / "elapsed_progress.parquet").unlink()
    assert main(["info", "dots"]) == 0
    command = re.findall(r"next: milepost (.+)", capsys.readouterr().out)[0]
    assert main([*shlex.split(command), "--steps", "2"]) == 0


def test_a_damaged_episode_is_found_and_left_out(dots: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The command that info names makes a sound copy, whose other episodes are unchanged."""
    before = [each.state for each in open_dataset(dots) if each.index != 1]
    (dots / "elapsed_progress.parquet").unlink()
    (file,) = (dots / "data").rglob("*.parquet")
    table = pq.read_table(file)
    place = table.schema.get_field_index("timestamp")
    of_episode = table["episode_index"].to_numpy() == 1
    broken = np.where(of_episode, np.nan, table["timestamp"].to_numpy()).astype(np.float32)
    pq.write_table(table.set_column(place, table.schema.field(place), [broken]), file)
    assert main(["info", "dots"]) == 1
    command = re.findall(r"next: milepost (.+)", capsys.readouterr().out)[0]
    assert "--without 1" in command
    assert main(shlex.split(command)) == 0
    assert validate("NEW").healthy
    assert len(before) == 5
    for old, new in zip(before, open_dataset("NEW"), strict=True):
        assert np.array_equal(old, new.state)


def test_episodes_of_a_copy_by_number(dots: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["copy", "dots", "--episodes", "0-3", "--without", "2", "--output-dir", "new"]) == 0
    assert len(open_dataset("new")) == 3
    for words, says in (
        (("--without", "9"), "--without names episode 9"),
        (("--without", "0-5"), "no episode stays"),
        (("--without", "abc"), "--without takes numbers"),
        (("--episodes", "1", "--without", "1"), "no episode stays"),
    ):
        assert main(["copy", "dots", *words, "--output-dir", "other"]) == 2
        assert says in capsys.readouterr().err
    assert not Path("other").exists()


def test_a_shell_completes_verbs_and_options(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["completion", "bash"]) == 0
    (tmp_path / "script").write_text(capsys.readouterr().out)

    def completed(*words: str) -> set[str]:
        line = shlex.join(words)
        script = (
            f"source ./script; COMP_WORDS=({line}); COMP_CWORD={len(words) - 1}; COMP_LINE={shlex.quote(line)}; COMP_POINT={len(line)}; "
            f"_tyro_milepost milepost {words[-1]} {words[-2]}; printf '%s\\n' \"${{COMPREPLY[@]}}\""
        )
        return set(subprocess.run(["bash", "-c", script], cwd=tmp_path, capture_output=True, text=True, check=True).stdout.split())

    assert completed("milepost", "an") == {"annotate"}
    assert "--overwrite" in completed("milepost", "label", "--over")
    assert main(["completion"]) == 2
    assert all(verb in (tmp_path / "script").read_text() for verb in VERBS)


def test_the_front_page_is_fast() -> None:
    """No heavy package is loaded for it."""
    code = "import sys; from milepost.cli.entry import main; main([]); assert not {'torch', 'pyarrow', 'tyro', 'av'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
