"""Names of tasks, files and servers are text in the terminal: no markup, no escape codes, whatever they hold."""

import re
from typing import Any

import pytest

from milepost.cli.console import bars, plain, say, table, unlisted, warn
from milepost.core.files import ranges

HOSTILE = "a [/red] [link=https://evil.example]b[/link] [bold]\x1b[31mred\x07 \x9b2J\r\u202ebidi"


def test_text_commands_no_terminal(capsys: pytest.CaptureFixture) -> None:
    table(HOSTILE, (HOSTILE, "n"), [(HOSTILE, 1), ("[left]", "[/]")])
    say(HOSTILE)
    warn(HOSTILE)
    with bars() as bar:
        bar(HOSTILE)(2, 2)
    captured = capsys.readouterr()
    text = captured.out + captured.err
    assert "[/red]" in text
    assert "[link=https://evil.example]b[/link]" in "".join(text.split("\n"))
    assert "[left]" in text
    assert not set(text) & set("\x1b\x07\x9b\r\u202e")
    assert "\\x1b[31mred\\x07" in text
    assert "\\u202ebidi" in text


def test_plain_keeps_what_people_write() -> None:
    assert plain("Öffne die Schublade\t100 % 毛巾 😀\n") == "Öffne die Schublade\t100 % 毛巾 😀\n"
    assert plain("\x00") == "\\x00"


def test_ranges_are_what_episodes_takes() -> None:
    assert ranges([]) == ""
    assert ranges([3]) == "3"
    assert ranges([0, 1, 2, 4, 6, 7]) == "0-2,4,6-7"


def test_many_episodes_that_are_left_out_are_few_lines() -> None:
    assert unlisted({}) == []
    assert unlisted({4: "no video", 2: "episode 2: its rows are gone"}) == [
        "episode 2 is left out: its rows are gone",
        "episode 4 is left out: no video",
    ]
    lines = unlisted(dict.fromkeys((*range(10, 20), 30), "no video"))
    assert lines[:5] == [f"episode {number} is left out: no video" for number in range(10, 15)]
    assert lines[5:] == ["6 more episodes are left out: 15-19, 30"]
    assert unlisted(dict.fromkeys(range(6), "no video"))[5:] == ["1 more episode is left out: 5"]


def test_long_work_speaks_without_a_terminal(capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("milepost.cli.console.EVERY_S", -1.0)
    with bars() as bar:
        tick = bar("read frames")
        for done in (1, 2, 3):
            tick(done, 3)
    lines = capsys.readouterr().err.splitlines()
    assert lines[:2] == ["read frames: 1 of 3", "read frames: 2 of 3"]
    assert lines[2].startswith("read frames: 3 in ")


def lines_of_table(
    columns: int | None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture, *content: Any, **options: Any
) -> list[str]:
    """Returns the lines of a table in a terminal of this width; None: there is no terminal."""
    for name in ("FORCE_COLOR", "NO_COLOR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", str(columns or 80))
    if columns is not None:
        monkeypatch.setenv("FORCE_COLOR", "1")
    table(*content, **options)
    return [line.rstrip() for line in re.sub(r"\x1b\[[0-9;]*m", "", capsys.readouterr().out).splitlines()]


NUMBERS = ["0.028 [0.01, 0.05]", "-0.068 [-0.16, 0.03]", "0.667 [0.667, 0.667]"]
ROWS = [("AUPRC by chance: the proportion of successes", *NUMBERS, *NUMBERS), ("error", *NUMBERS, *NUMBERS)]
NAMES = ("", "sarm", "sarm, one stage", "topreward", "value", "robometer", "a clock")


@pytest.mark.parametrize("columns", [60, 80, 120, 200])
def test_a_wide_table_breaks_no_word_and_no_number(columns: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    lines = lines_of_table(columns, monkeypatch, capsys, "many models", NAMES, ROWS)
    text = "\n".join(lines)
    assert max(map(len, lines)) <= columns
    assert [text.count(number) for number in NUMBERS] == [4, 4, 4]
    assert all(len(re.findall(rf"\b{word}\b", text)) >= 1 for name in NAMES for word in re.findall(r"\w+", name))
    rows = [re.split(r" {2,}", line.strip()) for line in lines if line.strip().startswith("error")]
    assert [number for row in rows for number in row[1:]] == [*NUMBERS, *NUMBERS]


def test_sentences_go_on_in_the_next_line_at_a_word(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    words = "there are four episodes that succeeded or may have, and five of them are needed for a verdict"
    row = ("?", "bears noise with a standard deviation of 10 of 255", words)
    lines = lines_of_table(80, monkeypatch, capsys, "what it does", ("", "property", "evidence"), [row], sentences=True)
    assert max(map(len, lines)) <= 80
    assert {*row[1].split(), *words.split()} <= {word for line in lines for word in line.split()}
    assert max(len(line) - len(line.lstrip()) for line in lines) < 45


def test_a_table_that_is_no_terminals_is_not_wrapped(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    lines = lines_of_table(None, monkeypatch, capsys, "many models", NAMES, ROWS)
    assert len(lines) == 4
    assert re.split(r" {2,}", lines[2]) == list(ROWS[0])
