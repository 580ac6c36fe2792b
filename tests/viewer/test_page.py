"""The page in a real browser: what it shows is what is in the dataset, what it changes is on disk, and nothing goes wrong or leaves."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from browser import CHROME, WHY_NOT, Watched, serving
from milepost.annotation.export import write_annotations
from milepost.cli import main
from milepost.commands.view import Args, open_review
from milepost.lerobot import open_dataset
from milepost.store import read_progress
from milepost.types import Segment
from milepost.viewer.export import export_html
from milepost.viewer.media import Films
from numbered import CAMERAS, FPS, LENGTHS, READ, write_numbered

pytestmark = pytest.mark.skipif(CHROME is None, reason=WHY_NOT)
playwright = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed: pip install playwright")

Opener = Callable[..., Watched]
Server = Callable[[Path], str]


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as started:
        chromium = started.chromium.launch(executable_path=CHROME, args=["--no-sandbox"])
        yield chromium
        chromium.close()


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """H.264, to be copied by tests that change it."""
    return write_numbered(tmp_path_factory.mktemp("made") / "cubes")


@pytest.fixture
def root(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "cubes"))


@pytest.fixture
def serve() -> Iterator[Server]:
    """serve(root) -> the address of `milepost view` on this dataset, until the pages are closed."""
    with ExitStack() as stack:
        yield lambda root: stack.enter_context(serving(root))


@pytest.fixture
def opened(browser: Any, serve: Server) -> Iterator[Opener]:
    """opened(address, view, **context) -> a watched page there; what went wrong on it fails the test at its end."""
    watched, contexts = [], []

    def open_page(home: str, where: str = "", **options: Any) -> Watched:
        contexts.append(browser.new_context(viewport={"width": 1280, "height": 800}, accept_downloads=True, **options))
        contexts[-1].set_default_timeout(8000)
        watched.append(Watched(contexts[-1].new_page(), home))
        watched[-1].open(where)
        return watched[-1]

    yield open_page
    for context in contexts:
        context.close()
    for one in watched:
        one.close()


@pytest.fixture
def page(root: Path, serve: Server, opened: Opener) -> Watched:
    """Episode 1: it begins in the middle of its file."""
    return opened(serve(root), "#/episode/1")


def on_disk(root: Path, number: int = 1) -> list[list[Any]]:
    return [[s.name, s.start, s.stop] for s in open_dataset(root).episode(number).segments.get("sparse", ())]


def expect(page: Watched, where: str) -> Any:
    return playwright.expect(page.page.locator(where))


# Pictures and time


@pytest.mark.parametrize("kind", ["libsvtav1", "libx264", "copy"])
def test_the_picture_is_the_frame(kind: str, tmp_path: Path, serve: Server, opened: Opener) -> None:
    """Paused at frame i, every camera shows frame i, and so do the number, the values and the stage; from AV1, H.264 and our copy."""
    root = write_numbered(tmp_path / "cubes", codec="libx264" if kind == "copy" else kind)
    curve = read_progress(root / "fallen_progress.parquet").episode(1, LENGTHS[1])
    home = serve(root)
    one = opened(home)
    if kind == "copy":
        one.page.add_init_script("HTMLMediaElement.prototype.canPlayType = () => ''")
        one.page.reload()
    one.open("#/episode/1")
    one.settle(0)
    sources = one.page.eval_on_selector_all("video", "videos => videos.map((video) => video.src)")
    assert all(("h264" if kind == "copy" else "source") in url for url in sources)
    for frame in (7, 8, 44, 43, 15, 22, 0, 29, 30):
        one.go(frame)
        one.settle(frame)
        one.page.wait_for_timeout(60)
        assert one.pictures() == [{"frame": frame, "episode": 1, "camera": camera} for camera in range(len(CAMERAS))]
        value = one.page.locator(".line", has_text="fallen").locator(".value").inner_text()
        assert float(value) == pytest.approx(curve[frame], abs=0.00501)
        stage = one.page.locator(".line", has_text="annotation").locator(".stage").inner_text()
        assert stage == ("reach", "lift", "place")[frame // 15]


SAMPLE = """([seconds]) => new Promise((done) => {
  const found = [], began = performance.now(), read = READ;
  const look = () => {
    const videos = [...document.querySelectorAll('video')].map(read);
    const number = Number(document.querySelector('.readout input').value);
    found.push([performance.now() - began, number, videos[0].frame, videos[1].frame]);
    if (performance.now() - began > seconds * 1000) done(found);
    else requestAnimationFrame(look);
  };
  look();
})""".replace("READ", READ)


def test_it_plays_in_step_and_stops_at_the_end(page: Watched) -> None:
    page.settle(0)
    page.page.keyboard.press(" ")
    seen = page.page.evaluate(SAMPLE, [1.2])
    frames = [number for _, number, _, _ in seen]
    assert frames == sorted(frames)
    late = [abs(number - top) for _, number, top, _ in seen]
    assert sum(one > 1 for one in late) <= 0.1 * len(late), late  # a loaded machine may call back late
    apart = sorted(abs(top - wrist) for _, _, top, wrist in seen)
    assert apart[int(0.9 * len(apart))] <= 2, apart
    first, last = next(one for one in seen if one[1] >= 3), seen[-1]
    assert (last[1] - first[1]) / (last[0] - first[0]) * 1000 == pytest.approx(FPS, rel=0.25)
    page.page.wait_for_selector("button[aria-label=Play]", timeout=5000)
    page.settle(44)
    assert [one["episode"] for one in page.pictures()] == [1, 1]
    page.page.keyboard.press(" ")
    page.page.wait_for_function("() => { const f = Number(document.querySelector('.readout input').value); return f > 2 && f < 40; }")
    page.page.keyboard.press(" ")
    page.settle(page.frame())


def test_keys_step_and_jump(page: Watched) -> None:
    page.settle(0)
    starts = page.page.evaluate("fetch('/api/episodes/1').then((r) => r.json()).then((e) => e.events.fallen.sparse.map((x) => x.start))")
    page.page.select_option("select[aria-label='Events of']", "fallen")
    page.blur()
    for key, frame in (
        *(("ArrowRight", 1), (".", 2), (",", 1), ("Shift+ArrowRight", 21), ("ArrowLeft", 20), ("End", 44), ("ArrowRight", 44)),
        *(("Home", 0), ("Shift+ArrowLeft", 0), ("b", 15), ("b", 30), ("Shift+B", 15), ("Home", 0), ("e", min(s for s in starts if s))),
    ):
        page.page.keyboard.press(key)
        page.settle(frame)
    page.page.keyboard.press("?")
    assert "Next event" in page.page.inner_text("dialog")
    page.page.keyboard.press("Escape")
    here = page.frame()
    page.page.wait_for_function("(frame) => location.hash.endsWith(`frame=${frame}`)", arg=here)
    page.page.reload()
    page.page.wait_for_selector("main")
    page.settle(here)


def test_scrubbing_with_the_mouse(page: Watched) -> None:
    page.settle(0)
    box = page.page.locator(".progress.track").bounding_box()
    y = box["y"] + box["height"] / 2
    page.page.mouse.move(page.x_of(10.5, 45), y)
    page.page.mouse.down()
    page.settle(10)
    for place in (12.5, 20.5, 33.5, 31.5):
        page.page.mouse.move(page.x_of(place, 45), y, steps=4)
    page.settle(31)
    page.page.mouse.up()
    page.page.keyboard.press("+")
    left = page.page.locator(".ruler").bounding_box()
    page.page.mouse.click(left["x"] + 4, left["y"] + 8)
    assert 10 < page.frame() < 31, "zoomed in about the playhead, the left edge is a later frame than 0"


def test_what_is_unknown_is_a_gap(page: Watched) -> None:
    path = page.page.locator("path.curve").nth([one.strip() for one in page.page.locator("button.name").all_inner_texts()].index("near"))
    drawn = path.get_attribute("d")
    assert [float(x) for x in re.findall(r"[ML]([\d.]+)", drawn)] == [frame + 0.5 for frame in range(45) if not 10 <= frame < 15]
    assert drawn.count("M") == 2
    page.go(12)
    assert page.page.locator(".line", has_text="near").locator(".value").inner_text() == "–"


# The annotation


def test_drag_save_reload(page: Watched, root: Path) -> None:
    page.settle(0)
    page.drag(1, 20, 45, drop=False)
    page.settle(20)  # the picture of the frame behind the border, while it is dragged
    page.page.mouse.up()
    assert page.segments() == [["reach", 0, 20], ["lift", 20, 30], ["place", 30, 45]]
    assert on_disk(root) == [["reach", 0, 15], ["lift", 15, 30], ["place", 30, 45]]
    page.page.keyboard.press("Control+s")
    expect(page, "#notices").to_contain_text("Episode 1 saved")
    assert on_disk(root) == [["reach", 0, 20], ["lift", 20, 30], ["place", 30, 45]]
    assert on_disk(root, 0) == [["reach", 0, 20], ["lift", 20, 40], ["place", 40, 60]]
    page.page.reload()
    page.page.wait_for_selector(".segment")
    assert page.segments() == on_disk(root)
    page.drag(1, 40, 45)  # no farther than the next border, less a frame
    assert page.segments()[0] == ["reach", 0, 29]


def test_undo_and_redo(page: Watched, root: Path) -> None:
    steps = [page.segments()]
    page.drag(1, 10, 45)
    steps.append(page.segments())
    page.page.focus(".handle >> nth=2")
    page.page.keyboard.press("ArrowRight")
    page.settle(31)
    steps.append(page.segments())
    assert steps[2] == [["reach", 0, 10], ["lift", 10, 31], ["place", 31, 45]]
    page.page.keyboard.press("Control+z")
    assert page.segments() == steps[1]
    page.page.keyboard.press("Control+z")
    assert page.segments() == steps[0]
    assert page.page.locator(".save").is_disabled()
    page.page.keyboard.press("Control+Shift+z")
    page.page.keyboard.press("Control+y")
    assert page.segments() == steps[2]
    page.page.keyboard.press("Control+s")
    expect(page, "#notices").to_contain_text("saved")
    page.page.keyboard.press("Control+z")
    page.page.keyboard.press("Control+s")
    expect(page, ".save").to_have_text("Saved")
    assert on_disk(root) == steps[1]


def test_split_rename_remove_add(page: Watched, root: Path) -> None:
    page.go(20)
    page.page.keyboard.press("s")
    page.page.keyboard.type("turn over")
    page.page.keyboard.press("Enter")
    assert page.segments() == [["reach", 0, 15], ["lift", 15, 20], ["turn over", 20, 30], ["place", 30, 45]]
    page.page.keyboard.press("Home")
    page.page.keyboard.press("r")
    page.page.keyboard.press("3")
    assert page.segments()[0] != ["reach", 0, 15]
    page.page.keyboard.press("Control+z")
    page.page.keyboard.press("End")
    page.page.keyboard.press("Shift+Delete")
    assert page.segments()[-1] == ["turn over", 20, 30]
    page.page.keyboard.press("a")
    page.page.keyboard.type("place")
    page.page.keyboard.press("Enter")
    assert page.segments()[-1] == ["place", 30, 45]
    page.go(16)
    page.page.keyboard.press("Delete")  # the lift: reach grows over it
    assert page.segments() == [["reach", 0, 20], ["turn over", 20, 30], ["place", 30, 45]]
    page.page.keyboard.press("Control+s")
    expect(page, "#notices").to_contain_text("saved")
    assert on_disk(root) == page.segments()
    proportions = json.loads((root / "meta" / "temporal_proportions_sparse.json").read_text())
    assert sorted(proportions) == ["lift", "place", "reach", "turn over"]
    assert list(proportions).index("reach") < list(proportions).index("turn over") < list(proportions).index("place")


def test_annotate_what_nobody_annotated(page: Watched, root: Path) -> None:
    page.open("#/episode/2")
    expect(page, ".nothing").to_be_visible()
    page.page.keyboard.press("a")
    page.page.keyboard.press("1")
    page.page.keyboard.press("Shift+ArrowRight")
    page.page.keyboard.press("s")
    page.page.keyboard.press("Enter")  # what usually follows
    assert page.segments() == [["reach", 0, 20], ["lift", 20, 80]]
    page.page.keyboard.press("Control+s")
    expect(page, "#notices").to_contain_text("Episode 2 saved")
    assert on_disk(root, 2) == page.segments()
    page.page.keyboard.press("Escape")
    page.page.select_option("select[aria-label=Annotation]", "no")
    expect(page, ".shown").to_have_text("0 of 3")


@pytest.mark.parametrize("choice", ["Take what is on disk", "Keep mine and save over it"])
def test_changed_underneath(page: Watched, root: Path, choice: str) -> None:
    page.expected = ("409",)
    page.drag(1, 10, 45)
    mine, theirs = page.segments(), [["reach", 0, 5], ["lift", 5, 45]]
    write_annotations(root, {1: {"sparse": tuple(Segment(*one) for one in theirs)}}, names={"sparse": ("reach", "lift", "place")})
    page.page.keyboard.press("Control+s")
    expect(page, ".conflict").to_contain_text("changed on disk")
    assert page.page.locator(".conflict .run").all_inner_texts() == ["reach", "lift"]
    assert page.segments() == mine
    assert on_disk(root) == theirs
    page.page.click(f"text={choice}")
    expect(page, ".save").to_have_text("Saved")
    assert on_disk(root) == page.segments() == (theirs if choice.startswith("Take") else mine)
    expect(page, ".conflict").to_have_count(0)


def test_faults_are_said_in_place(page: Watched, root: Path) -> None:
    page.expected = ("422",)
    before = on_disk(root)
    page.page.keyboard.press("r")
    page.page.keyboard.type("Lift")
    page.page.click(".option >> text=New stage")
    assert page.segments()[0] == ["Lift", 0, 15]
    page.page.keyboard.press("Control+s")
    expect(page, ".faults").to_contain_text("one name to a reader")
    assert on_disk(root) == before
    page.page.keyboard.press("Control+z")
    expect(page, ".faults").to_have_count(0)


def test_unsaved_changes_are_not_lost(page: Watched) -> None:
    page.drag(1, 10, 45)
    changed = page.segments()
    page.page.keyboard.press("n")
    expect(page, "h1").to_have_text("Episode 2")
    expect(page, ".unsaved").to_have_text("Episode 1 not saved")
    asked: list[str] = []
    page.page.once("dialog", lambda dialog: (asked.append(dialog.type), dialog.dismiss()))
    page.page.close(run_before_unload=True)
    page.page.wait_for_timeout(300)
    assert asked == ["beforeunload"]
    page.page.click(".unsaved")
    page.page.wait_for_selector(".segment")
    assert page.segments() == changed


def test_two_heads(root: Path, serve: Server, opened: Opener) -> None:
    """Each head has its own annotation, its own undo and its own save."""
    dense = tuple(Segment(*one) for one in (("grasp", 0, 20), ("pull", 20, 45)))
    write_annotations(root, {1: {"dense": dense}}, names={"dense": ("grasp", "pull")})
    page = opened(serve(root), "#/episode/1")
    page.drag(1, 10, 45)
    page.page.keyboard.press("h")
    assert page.segments() == [["grasp", 0, 20], ["pull", 20, 45]]
    page.drag(1, 30, 45)
    page.page.keyboard.press("Control+s")
    expect(page, "#notices").to_contain_text("saved")
    page.page.click("text=Sparse")
    assert page.segments()[0] == ["reach", 0, 10]
    expect(page, ".save").to_have_text("Save")
    assert [s.stop for s in open_dataset(root).episode(1).segments["dense"]] == [30, 45]
    assert on_disk(root)[0] == ["reach", 0, 15]


# The list


def test_sorts_filters_and_leads_on(root: Path, serve: Server, opened: Opener) -> None:
    home = serve(root)
    one = opened(home)
    assert one.shown() == [0, 1, 2]
    one.page.click("[role=columnheader] >> text=Final")
    assert one.shown() == [1, 0, 2]
    one.page.click("[role=columnheader] >> text=Final")
    assert one.shown() == [2, 0, 1]
    one.page.fill("input[type=search]", "cube")
    assert one.shown() == [2, 0]
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
  const took = Array.from({length: 30}, (_, k) => {
    const began = performance.now();
    rows.scrollTop = k % 2 ? 1000 : 4400;
    rows.dispatchEvent(new Event('scroll'));
    return performance.now() - began;
  });
  return took.sort((a, b) => a - b)[15];
}"""
"""Milliseconds for a screen of other rows: the median of 30."""


def test_five_thousand_episodes(root: Path, serve: Server, opened: Opener) -> None:
    """Only rows in view exist; scrolling costs what it costs with 200."""
    home, took = serve(root), {}
    for count in (200, 5000):
        one = opened(home)
        one.page.route("**/api/episodes", partial(multiplied, count))
        one.page.reload()
        one.page.wait_for_selector(".row")
        assert one.page.locator(".row").count() < 60
        took[count] = one.page.evaluate(SCROLL)
    assert took[5000] < 3 * took[200] + 5, took
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
    review, films = open_review(Args(dataset=str(root))), Films(tmp_path / "films")
    fragment = '<h1>Findings</h1><table><tr><td>error</td><td>0.05</td></tr></table><p>See <a href="#/episode/2?frame=7">episode 2</a>.</p>'
    try:
        assert export_html(review, tmp_path / "report.html", episodes=[2], films=films, report=fragment) == []
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
