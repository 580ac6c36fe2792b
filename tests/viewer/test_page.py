"""An episode in a real browser: the picture is the frame, what is changed is on disk, nothing goes wrong and nothing leaves."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from browser import Opener, Server, Watched, expect, on_disk
from milepost.cli.view import Args, open_review
from milepost.core.types import Segment
from milepost.datasets.annotations import write_annotations
from milepost.datasets.reader import open_dataset
from milepost.progress.table import read_progress
from milepost.viewer.export import export_html
from milepost.viewer.media import VideoCache
from numbered import CAMERAS, FPS, LENGTHS, READ, write_numbered

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


def test_a_typed_frame_is_one_there_is_and_gives_the_keys_back(page: Watched) -> None:
    page.settle(0)
    field = page.page.locator(".readout input")
    for typed, frame in (("99999", 44), ("12", 12)):
        field.fill(typed)
        field.press("Enter")
        page.settle(frame)
        page.page.wait_for_function("() => document.activeElement === document.body")
        assert field.input_value() == str(frame)
    page.page.keyboard.press("ArrowRight")
    page.settle(13)


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
    write_annotations(
        root, {1: {"sparse": tuple(Segment(*one) for one in theirs)}}, names={"sparse": ("reach", "lift", "place")}, overwrite=True
    )
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
    write_annotations(root, {1: {"dense": dense}}, names={"dense": ("grasp", "pull")}, overwrite=True)
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


def test_a_save_takes_nothing_from_under_the_pointer(root: Path, serve: Server, opened: Opener) -> None:
    """The refresh after a save waits for the button's release: a click that is under way is a click."""
    write_annotations(root, {1: {"dense": (Segment("grasp", 0, 45),)}}, names={"dense": ("grasp", "pull")}, overwrite=True)
    page = opened(serve(root), "#/episode/1")
    page.drag(1, 10, 45)
    box = page.page.locator("text=Dense").bounding_box()
    page.page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    page.page.mouse.down()
    with page.page.expect_response("**/api/episodes/1"):
        page.page.keyboard.press("Control+s")
    page.page.wait_for_timeout(200)
    page.page.mouse.up()
    expect(page, "[aria-pressed=true]").to_contain_text(["Dense"])
    assert page.segments() == [["grasp", 0, 45]]


def test_edits_of_segments(page: Watched) -> None:
    """Worked by hand: a gap in the middle, [0, 10) a, [10, 20) b, gap, [30, 40) a of 50 frames."""
    made = page.page.evaluate(
        """async () => {
             const m = await import('milepost/segments');
             const s = [['a', 0, 10], ['b', 10, 20], ['a', 30, 40]].map(([name, start, stop]) => ({name, start, stop}));
             const plain = (list) => list && list.map((x) => [x.name, x.start, x.stop]);
             const edges = m.borders(s);
             return {
               borders: edges.map((b) => [b.frame, b.left, b.right]),
               reach: edges.map((b) => m.reach(s, b, 50)),
               ends: edges.map((b) => plain(m.moveBorder(s, b, 99, 50)).flat()),
               gap: [m.gapAt(s, 25, 50), m.gapAt(s, 45, 50), m.gapAt(s, 5, 50)],
               added: plain(m.add(s, 25, 'b', 50)),
               removed: [0, 1, 2].map((k) => plain(m.remove(s, k))),
               left: plain(m.remove(s, 1, true)),
               renamed: plain(m.rename(s, 1, 'a')),
               split: [plain(m.split(s, 15, 'c')), m.split(s, 10, 'c'), m.split(s, 25, 'c')],
               runs: m.runs([null, 0, 0, 1, -1, 1]).map((r) => [r.value, r.start, r.stop]),
             };
           }"""
    )
    assert made["borders"] == [[0, -1, 0], [10, 0, 1], [20, 1, -1], [30, -1, 2], [40, 2, -1]]
    assert made["reach"] == [[0, 9], [1, 19], [11, 30], [20, 39], [31, 50]]
    assert made["ends"] == [
        ["a", 9, 10, "b", 10, 20, "a", 30, 40],
        ["a", 0, 19, "b", 19, 20, "a", 30, 40],
        ["a", 0, 10, "b", 10, 30, "a", 30, 40],
        ["a", 0, 10, "b", 10, 20, "a", 39, 40],
        ["a", 0, 10, "b", 10, 20, "a", 30, 50],
    ]
    assert made["gap"] == [[20, 30], [40, 50], None]
    assert made["added"] == [["a", 0, 10], ["b", 10, 30], ["a", 30, 40]]
    assert made["removed"] == [[["b", 0, 20], ["a", 30, 40]], [["a", 0, 20], ["a", 30, 40]], [["a", 0, 10], ["b", 10, 20]]]
    assert made["left"] == [["a", 0, 10], ["a", 30, 40]]
    assert made["renamed"] == [["a", 0, 20], ["a", 30, 40]]
    assert made["split"] == [[["a", 0, 10], ["b", 10, 15], ["c", 15, 20], ["a", 30, 40]], None, None]
    assert made["runs"] == [[0, 1, 3], [1, 3, 4], [1, 5, 6]]


def test_without_a_film_a_timer_leads(page: Watched) -> None:
    frame, ms = page.page.evaluate(
        """async () => {
             const {Player} = await import('milepost/player');
             const player = new Player(1000, 50), began = performance.now();
             player.setRate(2);
             player.play();
             await new Promise((done) => setTimeout(done, 700));
             player.pause();
             return [player.frame, performance.now() - began];
           }"""
    )
    assert frame == pytest.approx(0.1 * ms, abs=15)


def test_a_film_that_cannot_be_read_says_why(root: Path, tmp_path: Path, serve: Server, opened: Opener) -> None:
    """And not that the browser cannot play it: on the server's page and in an exported file, there without folders of this machine."""
    path = root / f"videos/{CAMERAS[0]}/chunk-000/file-000.mp4"
    path.write_text("version https://git-lfs.github.com/spec/v1\n")
    one = opened(serve(root))
    one.expected = ("422", "404")
    one.open("#/episode/1")
    expect(one, ".tile .said >> nth=0").to_contain_text("This video cannot be read: ")
    expect(one, ".tile .said >> nth=0").to_contain_text("git lfs pull")
    review, films = open_review(Args(dataset=str(root))), VideoCache(tmp_path / "films")
    assert export_html(review, tmp_path / "page.html", episodes=[1], films=films)
    review.close()
    films.close()
    one = opened((tmp_path / "page.html").as_uri(), offline=True)
    one.page.click(".row >> nth=0")
    expect(one, ".tile .said >> nth=0").to_contain_text("git lfs pull")
    assert str(root) not in one.page.inner_text("body")
