"""Annotations as a table in a person's editor: exact there and back; what is wrong is named by file and line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from milepost.annotation.sources import read_annotations
from milepost.annotation.spreadsheet import read_file, to_file
from milepost.core.errors import DataError
from milepost.core.types import Segment

FPS = 30.0
LENGTHS = {0: 90, 4: 31}
SOME = {
    4: {"sparse": (Segment('fold it, then "press"', 0, 7), Segment("let go", 10, 31))},
    0: {"dense": (Segment("reach", 3, 3),), "sparse": (Segment("reach", 0, 90),)},
}
CSV = """\
episode,head,name,start_s,end_s,start_frame,stop_frame
0,sparse,reach,0.0,3.0,0,90
0,dense,reach,0.1,0.1,3,3
4,sparse,"fold it, then ""press\""",0.0,0.233,0,7
4,sparse,let go,0.333,1.033,10,31
"""
JSON = """\
[
{"episode": 0, "head": "sparse", "name": "reach", "start_s": 0.0, "end_s": 3.0, "start_frame": 0, "stop_frame": 90},
{"episode": 0, "head": "dense", "name": "reach", "start_s": 0.1, "end_s": 0.1, "start_frame": 3, "stop_frame": 3},
{"episode": 4, "head": "sparse", "name": "fold it, then \\"press\\"", "start_s": 0.0, "end_s": 0.233, "start_frame": 0, "stop_frame": 7},
{"episode": 4, "head": "sparse", "name": "let go", "start_s": 0.333, "end_s": 1.033, "start_frame": 10, "stop_frame": 31}
]
"""


def edited(path: Path, *rows: str, header: str = "episode,head,name,start_s,end_s,start_frame,stop_frame") -> Path:
    path.write_text("\n".join([header, *rows]) + "\n")
    return path


@pytest.mark.parametrize(("suffix", "text"), [("csv", CSV), ("json", JSON)])
def test_the_file_letter_by_letter(tmp_path, suffix, text):
    path = tmp_path / f"towels.{suffix}"
    assert to_file(path, SOME, FPS) == 4
    assert path.read_bytes().decode().replace("\r\n", "\n") == text
    assert read_file(path, fps=FPS, lengths=LENGTHS) == SOME == read_file(path) == read_annotations(path)
    with pytest.raises(DataError, match="exists and may hold corrections"):
        to_file(path, SOME, FPS)
    assert to_file(path, {}, FPS, overwrite=True) == 0
    assert read_file(path, fps=FPS) == {}


def test_a_boundary_in_seconds_in_frames_or_in_both(tmp_path):
    rows = ("0,sparse,reach,,1.02,0,", "0,sparse,move,1.0166,,,60", "0,sparse,finish,2.0,3.0,60,90")
    expected = (Segment("reach", 0, 31), Segment("move", 31, 60), Segment("finish", 60, 90))
    with pytest.raises(DataError, match=r"line 3: episode 0: 'move' starts at frame 30, before 'reach' \(line 2\) ends at 31"):
        read_file(edited(tmp_path / "a.csv", *rows), fps=FPS)
    path = edited(tmp_path / "a.csv", rows[0], rows[1].replace("1.0166", "1.0167"), rows[2])
    assert read_file(path, fps=FPS) == {0: {"sparse": expected}}
    path = edited(tmp_path / "b.csv", "0,sparse,reach,0,1.5", header="episode,head,name,start_s,end_s")
    assert read_file(path, fps=FPS) == {0: {"sparse": (Segment("reach", 0, 45),)}}
    path = edited(tmp_path / "c.csv", "45,reach,0.0,sparse,0", header="stop_frame,name,start_frame,head,episode")
    assert read_file(path) == {0: {"sparse": (Segment("reach", 0, 45),)}}
    with pytest.raises(DataError, match=r"line 2: start_s is in seconds, and how many .* not known here; give start_frame"):
        read_file(tmp_path / "b.csv")


def test_if_seconds_and_frames_differ_nobody_guesses(tmp_path):
    path = edited(tmp_path / "a.csv", "0,sparse,reach,0.0,3.0,0,90", "", "0,sparse,move,3.0,3.5,90,100")
    with pytest.raises(DataError, match=r"a\.csv, line 4: end_s 3\.5 is frame 105, but stop_frame says 100; empty the one that is old"):
        read_file(path, fps=FPS)


def test_rows_in_any_order_and_a_spreadsheets_dialect(tmp_path):
    rows = ("4;sparse;let go, slowly;0,333;1,033;10;31", "4;sparse;fold;0;0,233;0.0;7", ";;;;;;", "")
    text = "\r\n".join(("\ufeffepisode;head;name;start_s;end_s;start_frame;stop_frame", *rows))
    (tmp_path / "excel.csv").write_bytes(text.encode())
    read = read_file(tmp_path / "excel.csv", fps=FPS, lengths=LENGTHS)
    assert read == {4: {"sparse": (Segment("fold", 0, 7), Segment("let go, slowly", 10, 31))}}


WRONG = {
    "line 2: no episode 3; there are 2, numbered 0 to 4": "3,sparse,reach,,,0,5",
    "line 2: 'reach' ends at frame 91, episode 0 has 90": "0,sparse,reach,,,0,91",
    "line 2: 'reach' goes from frame 7 to 5; a stage starts at 0": "0,sparse,reach,,,7,5",
    "line 2: 'reach' goes from frame -1 to 5": "0,sparse,reach,,,-1,5",
    "line 2: the stage's name is missing": "0,sparse, ,,,0,5",
    "line 2: the head should be sparse or dense, got 'coarse'": "0,coarse,reach,,,0,5",
    "line 2: the episode's number is missing": ",sparse,reach,,,0,5",
    "line 2: episode should be a whole number, got '0.5'": "0.5,sparse,reach,,,0,5",
    "line 2: start_s should be a number, got '0:05'": "0,sparse,reach,0:05,,0,5",
    "line 2: start_s should be a number, got 'nan'": "0,sparse,reach,nan,,0,5",
    "line 2: neither end_s nor stop_frame is given": "0,sparse,reach,,,0,",
    "line 2: unknown sparse stage 'wipe'; the stages are: reach, move": "0,sparse,wipe,,,0,5",
    "line 2: 8 cells, the header names 7; quote commas": "0,sparse,reach, then move,,,0,5",
    "line 4: episode 0: 'move' starts at frame 4, before 'reach' .line 2. ends at 5": (
        "0,sparse,reach,,,0,5\n0,dense,wipe,,,0,5\n0,sparse,move,,,4,9"
    ),
    "line 2: not CSV": '0,sparse,"reach"x,,,0,5',
}


@pytest.mark.parametrize("message", WRONG)
def test_what_is_wrong_is_named_by_file_and_line(tmp_path, message):
    path = edited(tmp_path / "wrong.csv", WRONG[message])
    with pytest.raises(DataError, match=rf"wrong\.csv, {message}"):
        read_file(path, fps=FPS, lengths=LENGTHS, names={"sparse": ("reach", "move")})


def test_json_is_named_by_line_too(tmp_path):
    path = tmp_path / "wrong.json"
    good = '{"episode": 0, "head": "sparse", "name": "reach", "start_frame": 0, "stop_frame": 5}'
    cases = {
        f"[\n {good},\n\n {good.replace('5', '99')}]": "line 4: 'reach' ends at frame 99",
        f"[{good},\n{good.replace('}', '')}]": "line 2: not JSON",
        f"[{good},\n 7]": "line 2: should be an object, got 7",
        f"[{good}": "line 1: not JSON",
        "{}": "should be a list of objects",
        '[\n{"episode": 0, "name": "x", "start_s": 0}]': "missing: head, end_s or stop_frame; unknown: none",
        f"[{good.replace('stop_frame', 'end_frame')}]": "missing: end_s or stop_frame; unknown: 'end_frame'",
        f"[{good.replace('0,', 'true,')}]": "line 1: episode should be a number, got True",
    }
    for text, message in cases.items():
        path.write_text(text)
        with pytest.raises(DataError, match=message):
            read_file(path, fps=FPS, lengths=LENGTHS)


def test_the_file_itself(tmp_path):
    with pytest.raises(DataError, match=r"ends in \.csv or \.json, got .*towels\.txt"):
        to_file(tmp_path / "towels.txt", SOME, FPS)
    with pytest.raises(DataError, match="is missing"):
        read_file(tmp_path / "none.csv")
    (tmp_path / "latin.csv").write_bytes(edited(tmp_path / "a.csv", "0,sparse,über,,,0,5").read_text().encode("latin-1"))
    with pytest.raises(DataError, match="save it as UTF-8"):
        read_file(tmp_path / "latin.csv")
    with pytest.raises(DataError, match="missing: episode, head, name, start_s or start_frame, end_s or stop_frame; unknown: 'a', 'b'"):
        read_file(edited(tmp_path / "b.csv", header="a,b"))


WORDS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12).filter(str.strip)


@st.composite
def annotations(draw: st.DrawFn) -> dict[int, dict[str, tuple[Segment, ...]]]:
    out: dict[int, dict[str, tuple[Segment, ...]]] = {}
    for episode in draw(st.lists(st.integers(0, 10**6), unique=True, max_size=3)):
        for head in draw(st.lists(st.sampled_from(["sparse", "dense"]), unique=True, min_size=1)):
            edges = sorted(draw(st.lists(st.integers(0, 40_000), min_size=2, max_size=10)))
            spans = zip(edges[::2], edges[1::2], strict=False)
            out.setdefault(episode, {})[head] = tuple(Segment(draw(WORDS), start, stop) for start, stop in spans)
    return out


FRAMES_PER_S = st.one_of(st.sampled_from([5.0, 10.0, 29.97, 30.0, 60.0, 1000.0]), st.floats(0.5, 2000))


@settings(max_examples=150, deadline=None)
@given(held=annotations(), fps=FRAMES_PER_S, suffix=st.sampled_from(["csv", "json"]))
def test_there_and_back_is_exact(tmp_path_factory, held, fps, suffix):
    """As it is, and with only the times or only the frames left."""
    path = tmp_path_factory.mktemp("table") / f"t.{suffix}"
    to_file(path, held, fps)
    assert read_file(path, fps=fps) == held == read_file(path)
    if suffix == "json":
        rows = json.loads(path.read_text())
        for left in (("start_s", "end_s"), ("start_frame", "stop_frame")):
            path.write_text(json.dumps([{name: row[name] for name in ("episode", "head", "name", *left)} for row in rows], indent=2))
            assert read_file(path, fps=fps) == held
