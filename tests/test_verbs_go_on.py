"""One episode that cannot be read stops no verb: it is named, the others are done, and the exit code is 1."""

from __future__ import annotations

from pathlib import Path

import pytest

from milepost.cli.entry import main
from milepost.datasets.reader import open_dataset
from odd_datasets import CAMERA, ENTRY, FILM, edit_entries, film, film_v21, lost_bytes, sixteen_bits, v3, v21, zero_length


@pytest.fixture
def lost(tmp_path: Path) -> Path:
    """Two films are gone; the clock, which needs none, has labelled all."""
    root = v21(tmp_path / "set", (12, 9, 15, 6))
    for number in (1, 3):
        film_v21(root, number).unlink()
    assert main(["label", str(root), "--model", "elapsed"]) == 0
    return root


@pytest.mark.parametrize("verb", ["render", "plot"])
def test_drawing(lost: Path, verb: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    assert main([verb, str(lost), "--output-dir", str(tmp_path / "out")]) == 1
    err = " ".join(capsys.readouterr().err.split())
    assert "episode 1 is left out" in err
    assert "2 of 4 episodes could not be read and are left out: 1, 3" in err
    made = sorted(path.name for path in (tmp_path / "out").iterdir() if not path.name.startswith("."))
    assert [name[:14] for name in made] == ["episode_000000", "episode_000002"]


def test_a_page_in_a_file(lost: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["view", str(lost), "--export-html", str(tmp_path / "page.html")]) == 1
    assert "episode_000001.mp4 is missing" in " ".join(capsys.readouterr().err.split())
    assert (tmp_path / "page.html").stat().st_size > 10_000


def test_an_episode_without_frames(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = zero_length(tmp_path / "set")
    assert main(["label", str(root), "--model", "elapsed"]) == 1
    assert "episode 2 has no frames" in " ".join(capsys.readouterr().err.split())
    assert main(["view", str(root), "--export-html", str(tmp_path / "page.html")]) == 1
    assert main(["render", str(root), "--episodes", "0-3", "--output-dir", str(tmp_path / "out")]) == 1
    assert len(list((tmp_path / "out").glob("*.mp4"))) == 3


def test_depth_is_filmed_when_it_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = sixteen_bits(tmp_path / "set")
    assert main(["label", str(root), "--model", "elapsed"]) == 0
    assert main(["render", str(root), "--output-dir", str(tmp_path / "out")]) == 2
    assert "if they are named with --camera-key" in " ".join(capsys.readouterr().err.split())
    assert main(["render", str(root), "--episodes", "0", "--camera-key", CAMERA, "--output-dir", str(tmp_path / "out")]) == 0


def test_the_cache_tells_places_apart(tmp_path: Path) -> None:
    """Films and features are kept by the dataset's fingerprint: the same files with other times are other pictures."""
    plain = open_dataset(v3(tmp_path / "set")).fingerprint
    edit_entries(
        tmp_path / "set", lambda rows: [row.update({f"{ENTRY}/from_timestamp": row[f"{ENTRY}/from_timestamp"] + 0.1}) for row in rows]
    )
    assert open_dataset(tmp_path / "set").fingerprint != plain


def test_a_film_damaged_in_one_episode(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = v3(tmp_path / "set", (60, 20, 5), films=lambda path, images: film(path, images, options={"g": "2", "bf": "0"}))
    lost_bytes(root / FILM, 20, 40)
    assert main(["label", str(root), "--model", "elapsed"]) == 0
    assert main(["render", str(root), "--output-dir", str(tmp_path / "out")]) == 1
    assert len(list((tmp_path / "out").glob("*.mp4"))) == 2
