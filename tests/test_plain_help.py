"""Help and errors of the command line have plain words: no Python types, no default twice, no names of our classes."""

import re
from pathlib import Path

import pytest

from milepost.cli.entry import VERBS, _with_flags, main


def shown(capsys: pytest.CaptureFixture, *words: str) -> tuple[int, str, str]:
    """Returns the exit code and what is printed."""
    try:
        code = main(list(words))
    except SystemExit as leaving:
        code = int(leaving.code or 0)
    out, err = capsys.readouterr()
    return code, out, err


@pytest.mark.parametrize("verb", VERBS)
def test_help_is_in_plain_words(verb: str, capsys: pytest.CaptureFixture) -> None:
    code, out, _ = shown(capsys, verb, "--help")
    assert code == 0
    assert not re.search(r"model-options|\bNone\b|\bSTR\b|\bINT\b|\bFLOAT\b|Literal|tuple\[|(default: (False|True))|[╭│╰]", out)
    options = re.split(r"\n  (?=-|[A-Z])", out)
    assert not [each for each in options if len(re.findall(r"(?i)\bdefault: ", " ".join(each.split()))) > 1]
    assert all(len(line) <= 110 for line in out.splitlines()[2:] if line.startswith("  "))


ERRORS = {
    "label d --model elapsed --head-mode foo": "--head-mode takes sparse, dense or both, got 'foo'",
    "label d --model topreward --price-per-million 1": "--price-per-million takes two values",
    "label d": "these options are needed:",
    "render d --height foo": "--height takes a whole number, got 'foo'",
    "plot d --width a": "--width takes a number, got 'a'",
    "train d --output-dir o --nothing 3": "there is no option --nothing, 3",
    "evaluate d --jsn": "did you mean --json?",
}


@pytest.mark.parametrize("command", ERRORS)
def test_an_error_is_in_plain_words(command: str, capsys: pytest.CaptureFixture) -> None:
    code, out, err = shown(capsys, *command.split())
    assert (code, out) == (2, "")
    assert ERRORS[command] in err
    assert f"milepost {command.split()[0]} --help" in err
    assert not re.search(r"NoneType|class '|tuple\[|could not convert|invalid literal|\{None\}|[╭│╰]", err)


def test_the_options_of_another_packages_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    from models.test_third_party import MODEL, install

    install(tmp_path / "site", monkeypatch, MODEL)
    _, out, _ = shown(capsys, "label", "d", "--model", "brightness", "--help")
    assert "options of the model brightness:" in out
    assert "--brightness.gain NUMBER" in out


def test_outputs_in_wrong_places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    """One sentence, and nothing is left behind."""
    from milepost.testing import write_example

    monkeypatch.chdir(tmp_path)
    write_example("dots")
    Path("out").mkdir()
    for words in (["--overwrite"], []):
        code, _, err = shown(capsys, "label", "dots", "--model", "elapsed", "--output-path", "out", *words)
        assert (code, len(err.splitlines())) == (2, 1)
        assert "out is a folder" in err
    Path("file").write_text("")
    code, _, err = shown(capsys, "render", "dots", "--output-dir", "file")
    assert (code, len(err.splitlines())) == (2, 1)
    assert sorted(path.name for path in Path().iterdir()) == ["dots", "file", "out"]


@pytest.mark.parametrize(
    ("error", "words"),
    [
        ("num_prefixes is at least 2, got 0", "--num-prefixes is at least 2, got 0"),
        ("fps is for frame_protocol='dense'", "fps is for --frame-protocol 'dense'"),
        ("fps and num_prefixes should be more", "--fps and --num-prefixes should be more"),
        ("it needs base_url: no server answers", "it needs --base-url: no server answers"),
        ("the column 'num_prefixes' is not there", "the column 'num_prefixes' is not there"),
        ("/data/num_prefixes/file is missing", "/data/num_prefixes/file is missing"),
        ("no_such_setting=3 is unknown", "no_such_setting=3 is unknown"),
    ],
)
def test_errors_call_settings_as_options_are_called(error: str, words: str) -> None:
    assert _with_flags(error, "label") == words
