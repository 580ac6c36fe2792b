"""The list, marks and the exported file in a real browser."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from browser import Opener, Server, expect
from milepost.cli.entry import main
from milepost.datasets import open_dataset
from milepost.viewer import Marks, Review
from milepost.viewer.export import export_html
from milepost.viewer.media import VideoCache

# The list


def test_sorts_filters_and_leads_on(root: Path, serve: Server, opened: Opener) -> None:
    home = serve(root)
    one = opened(home)
    assert one.shown() == [0, 1, 2]
    one.page.click("[role=columnheader] >> text=Final")
    assert one.shown() == [1, 2, 0]
    one.page.click("[role=columnheader] >> text=Final")
    assert one.shown() == [0, 2, 1]
    one.page.fill("input[type=search]", "cube")
    assert one.shown() == [0, 2]
    one.page.click("text=Ranges")
    one.page.fill("[data-range=length_min]", "61")
    assert one.shown() == [2]
    one.page.keyboard.press("Escape")
    one.page.click("text=Clear")
    one.page.select_option("select[aria-label=Outcome]", "no")
    assert one.shown() == [1]
    one.page.select_option("select[aria-label=Outcome]", "")
    one.page.select_option("select[aria-label=Event]", "regression")
    assert one.shown() == [2, 1]
    one.page.click(".row >> nth=0")
    expect(one, "nav .soft").to_have_text("1 of 2")
    one.page.keyboard.press("n")
    expect(one, "h1").to_have_text("Episode 1")
    one.page.keyboard.press("Escape")
    expect(one, ".row.selected").to_have_attribute("data-episode", "1")
    assert one.shown() == [2, 1]
    one.page.reload()
    one.page.wait_for_selector(".row")
    assert one.shown() == [2, 1]


def test_marks_and_their_export(root: Path, serve: Server, opened: Opener) -> None:
    home = serve(root)
    one = opened(home)
    for key in ("ArrowDown", "ArrowDown", "d", "Enter"):
        one.page.keyboard.press(key)
    expect(one, ".review .choice.drop").to_have_attribute("aria-pressed", "true")
    one.page.keyboard.press("n")
    expect(one, "h1").to_have_text("Episode 2")
    one.page.keyboard.press("c")
    one.page.keyboard.type("kept; s d k")
    with one.page.expect_response("**/api/marks"):
        one.page.keyboard.press("Enter")
    with one.page.expect_response("**/api/marks"):
        one.page.keyboard.press("k")
    held = json.loads((root.parent / "cubes.review.json").read_text())["marks"]
    assert [(m["episode"], m["mark"], m["note"]) for m in held] == [(1, "drop", ""), (2, "keep", "kept; s d k")]
    one.page.keyboard.press("Escape")
    one.page.select_option("select[aria-label=Mark]", "drop")
    assert one.shown() == [1]
    one.page.click("text=Export marks")
    expect(one, ".menu pre").to_contain_text("lerobot-edit-dataset")
    with one.page.expect_download() as download:
        one.page.click(".menu >> text=JSON")
    assert {m["episode"] for m in json.loads(Path(download.value.path()).read_text())["marks"]} == {1, 2}
    with one.page.expect_download() as download:
        one.page.click(".menu >> text=CSV")
    assert len(Path(download.value.path()).read_text().splitlines()) == 3


def test_a_corrupt_progress_file_is_said(root: Path, serve: Server, opened: Opener) -> None:
    (root / "broken_progress.parquet").write_bytes(b"PAR1 this is no parquet")
    home = serve(root)
    one = opened(home)
    assert "broken_progress.parquet" in one.page.inner_text(".banner")
    assert one.shown() == [0, 1, 2]
    one.page.click(".row >> nth=1")
    one.settle(0)
    assert "broken_progress.parquet" in one.page.inner_text(".banner")
    one.page.click(".banner button")
    expect(one, ".banner").to_have_count(0)


def test_without_curves(root: Path, serve: Server, opened: Opener) -> None:
    for path in root.glob("*_progress.parquet"):
        path.unlink()
    home = serve(root)
    one = opened(home, "#/episode/2")
    one.settle(0)
    one.page.keyboard.press("a")
    one.page.keyboard.press("2")
    assert one.segments() == [["lift", 0, 80]]


SCROLL = """() => {
  const rows = document.querySelector('.rows');
  rows.scrollTop = 1000;
  rows.dispatchEvent(new Event('scroll'));
  const watch = new MutationObserver(() => {});
  watch.observe(rows, {attributes: true, characterData: true, childList: true, subtree: true});
  rows.scrollTop = 4400;
  rows.dispatchEvent(new Event('scroll'));
  return watch.takeRecords().reduce((sum, each) => sum + 1 + each.addedNodes.length, 0);
}"""
"""How many changes of the page a scroll to other rows takes."""


def test_five_thousand_episodes(root: Path, serve: Server, opened: Opener) -> None:
    """Only rows in view exist; scrolling costs what it costs with 200."""
    home, changes = serve(root), {}
    for count in (200, 5000):
        one = opened(home)
        one.page.route("**/api/episodes", partial(multiplied, count))
        one.page.reload()
        one.page.wait_for_selector(".row")
        assert one.page.locator(".row").count() < 60
        changes[count] = one.page.evaluate(SCROLL)
    assert 0 < changes[5000] <= 1.2 * changes[200], changes
    one.page.keyboard.press("End")
    one.page.wait_for_function("() => [...document.querySelectorAll('.row')].some((row) => row.ariaRowIndex === '5001')")
    assert one.page.locator(".row").count() < 60
    one.page.click("[role=columnheader] >> text=Final")
    assert one.shown()[:3] == [1, 4, 7]
    one.page.fill("input[type=search]", "4999")
    assert one.shown() == [4999]


def multiplied(count: int, route: Any) -> None:
    route.fulfill(json=many(route.fetch().json(), count))


def many(told: dict[str, Any], count: int) -> dict[str, Any]:
    """The columns of three episodes as those of so many."""

    def repeat(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: repeat(one) for key, one in value.items()}
        return [value[k % 3] for k in range(count)] if isinstance(value, list) and len(value) == 3 else value

    return {**repeat(told), "index": list(range(count))}


def test_light_and_dark(root: Path, serve: Server, opened: Opener) -> None:
    home = serve(root)
    colours = []
    for scheme in ("light", "dark"):
        one = opened(home, "#/episode/1", color_scheme=scheme)
        one.settle(0)
        colours.append(one.page.evaluate("['body', '.side', '.curve'].map((s) => getComputedStyle(document.querySelector(s)).color)"))
        sizes = "[...document.querySelectorAll('body *')].filter((e) => e.innerText).map((e) => parseFloat(getComputedStyle(e).fontSize))"
        assert min(one.page.evaluate(sizes)) >= 11
    assert all(light != dark for light, dark in zip(*colours, strict=True))


# One file


def test_the_exported_file_opens_alone(root: Path, serve: Server, opened: Opener, capsys: pytest.CaptureFixture[str]) -> None:
    home = serve(root)
    served = opened(home, "#/episode/1")
    served.settle(0)
    values = served.page.inner_text(".values")
    served.page.keyboard.press("Escape")
    served.page.wait_for_selector(".row")
    listed = [served.column(number) for number in range(10)]
    path = root.parent / "out" / "review.html"
    assert main(["view", str(root), "--export-html", str(path), "--episodes", "0-2"]) == 0
    assert "3 episodes" in capsys.readouterr().out
    assert str(root) not in path.read_text()
    one = opened(path.as_uri(), offline=True)
    assert [one.column(number) for number in range(10)] == listed
    one.page.click(".row >> nth=1")
    one.settle(0)
    assert one.page.inner_text(".values") == values
    assert "read-only" in one.page.inner_text(".why")
    expect(one, ".handle, .save, .edit").to_have_count(0)
    for key, frame in (("ArrowRight", 1), ("End", 44), ("Shift+B", 30), ("Home", 0)):
        one.page.keyboard.press(key)
        one.settle(frame)
    one.page.keyboard.press(" ")
    one.page.wait_for_function("() => Number(document.querySelector('.readout input').value) > 5")
    one.page.keyboard.press(" ")
    one.settle(one.frame())
    assert [picture["episode"] for picture in one.pictures()] == [1, 1]


def test_a_report_comes_first(root: Path, tmp_path: Path, opened: Opener) -> None:
    films = VideoCache(tmp_path / "films")
    fragment = '<h1>Findings</h1><table><tr><td>error</td><td>0.05</td></tr></table><p>See <a href="#/episode/2?frame=7">episode 2</a>.</p>'
    dataset = open_dataset(root)
    review = Review(dataset, {}, marks=Marks(tmp_path / "marks.json", dataset), report=fragment)
    try:
        assert export_html(review, tmp_path / "report.html", episodes=[2], films=films) == []
    finally:
        review.close()
        films.close()
    one = opened((tmp_path / "report.html").as_uri(), offline=True)
    expect(one, ".report h1").to_have_text("Findings")
    one.page.click("text=episode 2")
    one.settle(7)
    one.page.keyboard.press("Escape")
    expect(one, ".tab[aria-current]").to_have_text("Episodes")
    assert one.shown() == [2]
    one.page.click("text=Report")
    expect(one, ".report td").to_have_count(2)
