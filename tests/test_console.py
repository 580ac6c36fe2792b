"""Names of tasks, files and servers are text in the terminal: no markup, no escape codes, whatever they hold."""

import pytest

from milepost.cli.console import bars, plain, ranges, say, table, unlisted, warn

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
    assert lines[5:] == ["6 more episodes are left out: 15-19,30"]
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
