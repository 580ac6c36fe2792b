"""Help and errors of the command line have plain words: no Python types, no default twice, no names of our classes."""

import contextlib
import functools
import io
import itertools
import os
import re
import shlex
from pathlib import Path

import pytest

from milepost.cli import plain_help
from milepost.cli.entry import VERBS, _parser, _with_flags, main
from milepost.cli.verb_help import HELP


def shown(capsys: pytest.CaptureFixture, *words: str) -> tuple[int, str, str]:
    """Returns the exit code and what is printed."""
    try:
        code = main(list(words))
    except SystemExit as leaving:
        code = int(leaving.code or 0)
    out, err = capsys.readouterr()
    return code, out, err


@pytest.mark.parametrize("verb", VERBS)
def test_help_is_in_plain_words(verb: str) -> None:
    out = help_of(verb)
    assert not re.search(r"model-options|\bNone\b|\bSTR\b|\bINT\b|\bFLOAT\b|Literal|tuple\[|(default: (False|True))|[╭│╰]", out)
    options = re.split(r"\n  (?=-|[A-Z])", out)
    assert not [each for each in options if len(re.findall(r"(?i)\bdefault: ", " ".join(each.split()))) > 1]
    words = re.findall(r"^  (-.*?)(?:  |$)", out, re.MULTILINE)
    assert not [each for each in words if any(each.count(opening) != each.count(end) for opening, end in ("{}", "[]"))]
    assert all(len(line) <= 110 for line in out.splitlines()[2:] if line.startswith("  "))


@functools.cache
def help_of(verb: str, columns: int = 80) -> str:
    """Returns the help of a verb in a terminal of this width."""
    out = io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(out), contextlib.suppress(SystemExit):
        patch.setenv("COLUMNS", str(columns))
        try:
            main([verb, "--help"])
        finally:
            assert os.environ["COLUMNS"] == str(columns)
    return out.getvalue()


def parts_of(out: str) -> tuple[list[str], dict[str, list[str]]]:
    """Returns the lines before the first title, and title -> lines."""
    lines = out.splitlines()
    titles = [place for place, line in enumerate(lines) if re.fullmatch(r"\S.*:", line)]
    ends = [*titles[1:], len(lines)]
    return lines[: titles[0]], {lines[place][:-1]: lines[place + 1 : end] for place, end in zip(titles, ends, strict=True)}


def options_in(lines: list[str]) -> list[str]:
    """Returns each option's first name."""
    return [line.split()[0].rstrip(",") for line in lines if re.match(r"  -", line)]


@pytest.mark.parametrize("columns", [80, 200])
@pytest.mark.parametrize("verb", VERBS)
def test_help_shows_first_what_helps_most(verb: str, columns: int) -> None:
    """A sentence, the usage, the main options, examples, all other options in groups; nothing is wider than a usual terminal."""
    out = help_of(verb, columns)
    opening, groups = parts_of(out)
    assert re.fullmatch(r"[A-Z](?!.*\. ).*[a-z0]\.", opening[0])
    assert (len(opening[0]) <= 80, opening[1]) == (True, "")
    assert opening[0].split()[0] not in ("Says", "All", "It")
    assert opening[2].startswith(f"usage: milepost {verb} ")
    assert list(groups)[:2] == [plain_help.MAIN, "examples"]
    assert max(map(len, out.splitlines())) <= min(columns, 110)
    assert not [
        title for title in groups if "-options" in title or re.match(r"options of the model \w+$", title) or title == plain_help.REST
    ]
    options = [option for lines in groups.values() for option in options_in(lines)]
    assert len(options_in(groups[plain_help.MAIN])) == min(3, len(options) - 1)
    assert len(options) == len(set(options))
    assert not re.search(r"[A-Za-z]-\n|''", out)
    of_parser = {name for box in parser_boxes(verb) for words, _ in box.entries for name in re.findall(r"--[a-z][\w.-]*", words)}
    assert of_parser == {
        name
        for line in out.splitlines()
        if line.startswith("  -")
        for name in re.findall(r"--[a-z][\w.-]*", line.lstrip().partition("  ")[0])
    }


@functools.cache
def parser_boxes(verb: str) -> list[plain_help.Box]:
    """Returns what the parser itself writes."""
    out = io.TextIOWrapper(io.BytesIO(), "utf-8", write_through=True)
    with contextlib.redirect_stdout(out), contextlib.suppress(SystemExit):
        _parser(verb, [])[0](args=["--help"])
    out.seek(0)
    return [part for part in plain_help.boxes(out.read()) if isinstance(part, plain_help.Box)]


@pytest.mark.parametrize("verb", VERBS)
def test_the_examples_of_the_help_are_commands(verb: str) -> None:
    """The verb's own parser takes them."""
    lines = "\n".join(parts_of(help_of(verb))[1]["examples"]).replace("\\\n", "").splitlines()
    examples = [shlex.split(line) for line in lines if line.startswith("  milepost ")]
    assert 2 <= len(examples) <= 4
    for words in examples:
        assert words[1] == verb
        parse, own_words = _parser(verb, words[2:])
        parse(args=own_words)


@pytest.mark.parametrize("verb", VERBS)
def test_every_option_says_what_it_is(verb: str) -> None:
    entries = re.findall(r"^  (-.*(?:\n {4,}.*)*)", help_of(verb), re.MULTILINE)
    bare = [each for each in entries if not re.search(r"  [A-Za-z0-9\"].{4}", each.replace("\n", " "))]
    assert not bare


@pytest.mark.parametrize("verb", VERBS)
def test_the_help_says_what_the_exit_codes_are(verb: str) -> None:
    """The page has the same words."""
    page = (Path(__file__).parents[1] / "docs" / "step_by_step.md").read_text()
    words = HELP[verb].code_1
    assert HELP[verb].exit_codes in " ".join(help_of(verb).split())
    assert (f"| `{verb}` | {words} |" in page) == bool(words)


def test_titles_and_meanings_name_options_that_exist() -> None:
    """A renamed option takes its place in the help with it."""
    for verb, own in HELP.items():
        names = {name for box in parser_boxes(verb) for words, _ in box.entries for name in re.findall(r"--[a-z][\w.-]*", words)}
        assert not {*own.main, *" ".join(own.titles.values()).split()} - names


def test_an_option_with_two_names_is_called_by_its_own_first() -> None:
    assert "--model TEXT, --reward-model-path TEXT" in help_of("label")


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


def test_an_options_text_in_an_error_breaks_only_where_the_line_ends(capsys: pytest.CaptureFixture) -> None:
    _, _, err = shown(capsys, "label", "d")
    lines = [line for line in err.splitlines() if line.startswith("        ")]
    assert len(lines) > 2
    assert all(len(line) + len(after.split()[0]) >= 110 for line, after in itertools.pairwise(lines))


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
