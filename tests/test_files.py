"""Somebody else's files are read within limits, and every refusal is one line in the user's words."""

import os
from pathlib import Path

import numpy as np
import pytest

from milepost.core.errors import DataError
from milepost.core.files import DEPTH, expand, is_inside, parse_json, plausible, read_json, read_json_object, require_inside, shown


@pytest.mark.parametrize(
    ("kind", "value", "number"),
    [
        ("fps", 30, 30.0),
        ("fps", 29.97, 29.97),
        ("length", 12.0, 12),
        ("row", np.int64(7), 7),
        ("row", 0, 0),
        ("seconds", np.float32(1.5), 1.5),
    ],
)
def test_plausible_numbers_pass(kind: str, value: object, number: float) -> None:
    got = plausible(kind, value, source="meta/info.json")
    assert got == number
    assert type(got) is type(number)


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        *[("fps", bad) for bad in (0, -1, float("nan"), float("inf"), 1e300, 5e-324, 10**19, "30", None, True, [30])],
        *[("length", bad) for bad in (-1, 10**12, 1.5, float("nan"), "12", b"12", {})],
        ("row", -1),
        ("size", 2**40),
        ("size", np.zeros(3)),
    ],
)
def test_implausible_numbers_are_refused_in_words(kind: str, value: object) -> None:
    with pytest.raises(DataError, match=rf"^meta/info.json: '{kind}' should be a (whole )?number from") as error:
        plausible(kind, value, source="meta/info.json")
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 200


def test_a_value_in_a_message_is_short_and_plain() -> None:
    assert shown(b"\x89PNG" * 1000) == "4000 bytes"
    assert shown([[1] * 1000] * 3) == "a list of 3"
    assert shown("a\x1b[31m\nb") == "'a?[31m?b'"
    assert len(shown("x" * 10_000)) < 50
    assert shown(10**5000) == "a number of more than 25 digits"
    assert shown(None) == "missing"


def test_json_is_read(tmp_path: Path) -> None:
    path = tmp_path / "info.json"
    path.write_bytes(b'\xef\xbb\xbf{"fps": 30, "text": "[[[[", "nan": NaN}')
    content = read_json_object(path)
    assert content["fps"] == 30
    assert content["text"] == "[[[["
    assert np.isnan(content["nan"])


DEEP = "[" * 100_000 + "]" * 100_000


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (DEEP, f"nested more than {DEPTH} levels"),
        ('{"a":' * 65 + "1" + "}" * 65, f"nested more than {DEPTH} levels"),
        ("[" + "9" * 26 + "]", "digits"),
        ("[" + "9" * 5000 + "]", "digits"),
        ('{"a": 1', "cannot be read as JSON"),
        ("", "cannot be read as JSON"),
        (b"\xff\xfe{}", "UTF-8"),
        ("caf\xe9".encode("latin-1"), "UTF-8"),
    ],
)
def test_hostile_json_is_refused_in_one_line(text: str | bytes, words: str) -> None:
    with pytest.raises(DataError, match=words) as error:
        parse_json(text, source="meta/info.json")
    assert str(error.value).startswith("meta/info.json")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("text", ["[NaN]", "[Infinity]", "[-Infinity]", "[1e999]"])
def test_finite_json_has_finite_numbers(text: str) -> None:
    parse_json(text, source="x")
    with pytest.raises(DataError):
        parse_json(text, source="x", finite=True)


def test_only_plain_files_are_opened(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "device").symlink_to("/dev/zero")
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "gone").symlink_to("nowhere")
    big = tmp_path / "big"
    with big.open("wb") as file:
        file.truncate(2**30)
    words = {"folder": "is a folder", "pipe": "no plain file", "device": "no plain file", "loop": "cannot be opened", "gone": "is missing"}
    for name, expected in (words | {"big": "at most 64 MB", "nul\0": "cannot be opened", "missing": "is missing"}).items():
        with pytest.raises(DataError, match=expected):
            read_json(tmp_path / name)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read_is_reported_as_that(tmp_path: Path) -> None:
    path = tmp_path / "info.json"
    path.write_text("{}")
    path.chmod(0)
    with pytest.raises(DataError, match="may not be read"):
        read_json(path)


def test_templates_are_expanded() -> None:
    assert (
        expand("videos/{video_key}/chunk-{chunk_index:03d}/f.mp4", source="i", video_key="top", chunk_index=7)
        == "videos/top/chunk-007/f.mp4"
    )
    assert expand("e_{episode_index:06d}.parquet", source="i", episode_index=12) == "e_000012.parquet"


@pytest.mark.parametrize(
    "template",
    [
        "{chunk_index:>3000000000}",
        "{chunk_index:0300d}",
        "{0}",
        "{}",
        "{chunk_index.__class__}",
        "{chunk_index[0]}",
        "{chunk_index!r}",
        "{other}",
        "{video_key:99}",
        "{chunk_index:{chunk_index}}",
        "{chunk_index",
        "../{chunk_index}",
        "/etc/{chunk_index}",
        "a/../../{chunk_index}",
        "{video_key}/x",
        "",
        "a\0b",
        "x" * 2000,
    ],
)
def test_hostile_templates_are_refused(template: str) -> None:
    with pytest.raises(DataError, match=r"^info\.json: the path"):
        expand(template, source="info.json", chunk_index=1, video_key="..")


def test_inside(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "out").symlink_to(tmp_path.parent)
    assert is_inside(tmp_path / "data/x", tmp_path)
    assert not is_inside(tmp_path / "data/out/x", tmp_path)
    assert require_inside("a/b..c", source="x") == "a/b..c"
