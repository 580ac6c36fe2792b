"""The page's editor on a dataset whose stages are the subtasks of LeRobot's column `language_persistent`."""

from __future__ import annotations

from pathlib import Path

from language_content import row, write_language
from milepost.core.types import Segment
from milepost.datasets.metadata import read_metadata
from milepost.datasets.reader import open_dataset
from reviewed import page_of, review_of


def test_the_page_shows_and_saves_them(tmp_path: Path) -> None:
    root = write_language(tmp_path / "dots", lambda n: [row("a plan", 0, "plan"), row("reach", 0), row("carry", 12 + n)])
    length = open_dataset(root).length(1)
    data = {path: path.read_bytes() for path in (root / "data").rglob("*.parquet")}
    with page_of(review_of(root)) as page:
        shown = page.get("/api/episodes/1").json()["heads"]["sparse"]
        assert shown["segments"] == [{"name": "reach", "start": 0, "stop": 13}, {"name": "carry", "start": 13, "stop": length}]
        moved = [{"name": "reach", "start": 0, "stop": 15}, {"name": "carry", "start": 15, "stop": length}]
        body = {"head": "sparse", "segments": moved, "version": shown["version"]}
        assert page.put("/api/episodes/1/segments", json=body).status_code == 200
        assert page.put("/api/episodes/1/segments", json=body).status_code == 409
        others = page.get("/api/episodes/3").json()["heads"]["sparse"]["segments"]
        assert [(each["name"], each["start"]) for each in others] == [("reach", 0), ("carry", 15)]
        faulty = [{"name": "carry", "start": 0, "stop": 15}, {"name": "reach", "start": 9, "stop": length}]
        version = page.get("/api/episodes/1").json()["heads"]["sparse"]["version"]
        answer = page.put("/api/episodes/1/segments", json={"head": "sparse", "segments": faulty, "version": version})
        assert answer.status_code == 422
    assert open_dataset(root)[1].segments["sparse"] == (Segment("reach", 0, 15), Segment("carry", 15, length))
    assert open_dataset(root)[2].segments["sparse"][1].start == 14
    assert not read_metadata(root).from_language
    assert {path: path.read_bytes() for path in data} == data
