"""Films: the source's pixels untouched above, a panel that tells the truth below; whole files or none."""

import itertools
from pathlib import Path

import av
import numpy as np
import PIL.Image
import pytest

from builders import TOP, build_dataset, encode_with, moving, plain_decode
from milepost.core.errors import DataError
from milepost.core.types import ArrayFrames, Episode
from milepost.datasets.reader import open_dataset
from milepost.datasets.video import probe
from milepost.figures.episode import EpisodeView, HeadView
from milepost.figures.film.curves import between, curves_area, line_mask, rgb, rows_of, stage_colours, strip
from milepost.figures.film.panel import Panel
from milepost.figures.film.planes import mp4_writer, planes, to_i420
from milepost.figures.film.render import render_video
from milepost.figures.film.text import fit, fonts, lines, tile, width_of
from milepost.figures.style import STAGE_COLOURS, ramp

NAN = float("nan")


def story(length: int, *, fps: float = 20.0, title: str = "episode 0: push the block", **curves: np.ndarray) -> EpisodeView:
    curves = curves or {"sarm": np.linspace(0, 1, length, dtype=np.float32)}
    stage = np.arange(length) * 3 // length
    head = HeadView(curves, true_stage=stage, stage_names=("reach", "grasp", "place"))
    return EpisodeView(title, fps, {"sparse": head}, weight=np.linspace(0, 1, length, dtype=np.float32))


def episode_of(images: np.ndarray, fps: float = 20.0, **more: np.ndarray) -> Episode:
    cameras = {"top": ArrayFrames(images)} | {name: ArrayFrames(each) for name, each in more.items()}
    return Episode(0, 0, "push the block", fps, len(images), np.zeros((len(images), 0), np.float32), cameras)


def bright(image: np.ndarray) -> np.ndarray:
    return image @ np.array([0.299, 0.587, 0.114])


def quarter(image: np.ndarray) -> np.ndarray:
    """The mean of 2 x 2 pixels, which is where a film's colours live."""
    frames, height, width, _ = image.shape
    return image.astype(float).reshape(frames, height // 2, 2, width // 2, 2, 3).mean(axis=(2, 4))


def assert_same_pictures(shown: np.ndarray, source: np.ndarray, folder: Path) -> None:
    """But for coding noise: as much as the same encoder makes of the source alone. And each is far from the next frame of the source."""
    encode_with(folder / "alone.mp4", source, 20, "libx264", preset="veryfast", crf="18")
    alone = plain_decode(folder / "alone.mp4")
    for look in (bright, quarter):
        noise, usual = (np.abs(look(images) - look(source)).mean() for images in (shown, alone))
        assert noise < 1.15 * usual + 0.3
        assert np.abs(look(shown)[:-1] - look(source)[1:]).mean() > 4 * noise


@pytest.mark.parametrize("codec", ["libsvtav1", "libx264", "libx265", "png"])
@pytest.mark.parametrize("size", [(96, 96), (240, 320), (480, 640), (720, 1280)])
def test_a_film_shows_every_frame_as_it_is(codec: str, size: tuple[int, int], tmp_path: Path) -> None:
    if codec != "png":
        try:
            av.Codec(codec, "w")
        except av.codec.codec.UnknownCodecError:
            pytest.skip(f"this PyAV has no encoder {codec}")
    length = 40 if size[0] <= 240 else 6
    built = build_dataset(tmp_path / "data", lengths=(5, length), cameras={TOP: codec}, size=size)
    episode = open_dataset(built.root).episode(1)
    out = tmp_path / "film.mp4"
    render_video(episode, story(length), [TOP], out)
    info, film, source = probe(out), plain_decode(out), built.images[TOP, 1]
    assert (info.codec, info.pix_fmt, info.frames, info.fps) == ("h264", "yuv420p", length, 20)
    assert info.duration == pytest.approx(length / 20)
    assert len(film) == length
    factor = 4 if size[1] == 96 else 1
    source = source.repeat(factor, axis=1).repeat(factor, axis=2)
    height, width = source.shape[1:3]
    assert film.shape[2] == width
    assert_same_pictures(film[:, :height], source, tmp_path)
    panel = film[:, height:]
    assert (panel.min(axis=(0, 3)) > 150).mean() > 0.3  # paper
    assert np.abs(panel[0].astype(int) - panel[-1]).max() > 100  # and things that move


def test_browsers_find_the_index_in_front(tmp_path: Path) -> None:
    out = tmp_path / "film.mp4"
    render_video(episode_of(np.stack([*moving(10)])), story(10), ["top"], out)
    content = out.read_bytes()
    assert content.index(b"moov") < content.index(b"mdat")
    with av.open(str(out)) as container:
        context = container.streams.video[0].codec_context
        assert (context.profile, context.pix_fmt, int(context.color_range)) == ("High", "yuv420p", 1)


def test_colours_survive(tmp_path: Path) -> None:
    """Flat patches of strong colours come back within what BT.601 in 8 bits keeps; tagged, so no player guesses."""
    colours = np.array([[200, 40, 90], [10, 220, 60], [30, 60, 240], [250, 250, 10]], np.uint8)
    image = colours.reshape(2, 2, 3).repeat(160, axis=0).repeat(160, axis=1)
    out = tmp_path / "film.mp4"
    render_video(episode_of(np.stack([image] * 5)), story(5), ["top"], out)
    shown = plain_decode(out)[2]
    for y, x in itertools.product((80, 240), (80, 240)):
        np.testing.assert_allclose(shown[y, x], image[y, x], atol=5)


def test_odd_sizes(tmp_path: Path) -> None:
    images = np.stack([*moving(6, height=104, width=328)])[:, :99, :325]
    out = tmp_path / "film.mp4"
    render_video(episode_of(images), story(6), ["top"], out)
    film = plain_decode(out)
    assert film.shape[1] % 2 == film.shape[2] % 2 == 0
    assert_same_pictures(film[:, :98, :324], images[:, :98, :324], tmp_path)


def test_cameras_side_by_side_each_its_own_pictures(tmp_path: Path) -> None:
    """The smaller one twice as large, to be as high as the other."""
    large, small = np.stack([*moving(8, height=192, width=256)]), np.stack([*moving(8, seed=5, height=96, width=128)])
    out = tmp_path / "film.mp4"
    render_video(episode_of(large, wrist=small), story(8), ["top", "wrist"], out)
    film = plain_decode(out)
    assert_same_pictures(film[:, :192, :256], large, tmp_path)
    assert_same_pictures(film[:, :192, 260:516], small.repeat(2, axis=1).repeat(2, axis=2), tmp_path)


def test_height_as_asked(tmp_path: Path) -> None:
    images = np.stack([*moving(6, height=240, width=480)])
    out = tmp_path / "film.mp4"
    render_video(episode_of(images), story(6), ["top"], out, height=160)
    film = plain_decode(out)
    assert film.shape[2] == 320
    smaller = np.stack([np.asarray(PIL.Image.fromarray(image).resize((320, 160), PIL.Image.Resampling.LANCZOS)) for image in images])
    assert np.abs(bright(film[:, :160]) - bright(smaller)).mean() < 4


def test_a_gif_beside_it(tmp_path: Path) -> None:
    images = np.stack([*moving(61, height=240, width=640)])
    mp4, gif = tmp_path / "film.mp4", tmp_path / "film.gif"
    render_video(episode_of(images, fps=30.0), story(61, fps=30.0), ["top"], mp4, gif=gif)
    with PIL.Image.open(gif) as image:
        shown, durations = [], []
        for number in range(image.n_frames):
            image.seek(number)
            durations.append(image.info["duration"])
            shown.append(np.asarray(image.convert("RGB")))
        assert image.info["loop"] == 0
        assert image.width == 480
    assert len(shown) == 21  # every third of 61
    assert sum(durations) == pytest.approx(21 * 100, abs=30)
    height = 180
    smaller = [PIL.Image.fromarray(each).resize((480, height), PIL.Image.Resampling.LANCZOS) for each in images[::3]]
    near = np.abs(bright(np.stack(shown)[:, :height]) - bright(np.stack([np.asarray(each) for each in smaller]))).mean()
    assert near < 12  # 256 colours for a ground of random ones
    assert len(np.unique(shown[10].reshape(-1, 3), axis=0)) <= 256
    assert probe(mp4).frames == 61


def test_stopped_in_the_middle_nothing_is_left_and_the_old_film_stays(tmp_path: Path) -> None:
    episode, mp4, gif = episode_of(np.stack([*moving(30)])), tmp_path / "film.mp4", tmp_path / "film.gif"
    mp4.write_bytes(b"the old film")

    def stop(done: int, total: int) -> None:
        if done == 20:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        render_video(episode, story(30), ["top"], mp4, gif=gif, tick=stop)
    assert [path.name for path in tmp_path.iterdir()] == ["film.mp4"]
    assert mp4.read_bytes() == b"the old film"
    seen: list[int] = []
    render_video(episode, story(30), ["top"], mp4, gif=gif, tick=lambda done, total: seen.append(done))
    assert seen == list(range(1, 31))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["film.gif", "film.mp4"]


def test_a_damaged_source_leaves_nothing(tmp_path: Path) -> None:
    built = build_dataset(tmp_path / "data", lengths=(20,), size=(96, 128))
    video = next(built.root.rglob("*.mp4"))
    content = video.read_bytes()
    half = len(content) // 2
    video.write_bytes(content[:half] + bytes(4000) + content[half + 4000 :])
    out = tmp_path / "out"
    out.mkdir()
    with pytest.raises(DataError, match=r"damaged|shorter|cannot be opened"):
        render_video(open_dataset(built.root).episode(0), story(20), [TOP], out / "film.mp4", gif=out / "film.gif")
    assert not [*out.iterdir()]


def test_no_camera_and_a_wrong_one(tmp_path: Path) -> None:
    episode = episode_of(np.stack([*moving(3)]))
    with pytest.raises(DataError, match="no camera 'left'; this dataset has: top"):
        render_video(episode, story(3), ["left"], tmp_path / "film.mp4")
    with pytest.raises(DataError, match="nothing to show"):
        render_video(episode, story(3), [], tmp_path / "film.mp4")
    with pytest.raises(DataError, match="no frames"), mp4_writer(tmp_path / "film.mp4", (64, 64), 10):
        pass
    assert not [*tmp_path.iterdir()]


# The panel


def drawn(panel: Panel, frame: int, width: int) -> np.ndarray:
    i420 = to_i420(np.zeros((panel.height, width, 3), np.uint8))
    panel.draw(frame, planes(i420))
    return av.VideoFrame.from_ndarray(i420, format="yuv420p").to_ndarray(format="rgb24")


def near(image: np.ndarray, colour: np.ndarray | str, far: int = 12) -> np.ndarray:
    target = rgb(colour) if isinstance(colour, str) else colour
    return np.abs(image.astype(int) - target).max(axis=-1) <= far


def test_the_played_part_is_filled_in_the_colour_of_its_progress() -> None:
    value = np.linspace(0, 1, 200, dtype=np.float32)
    far, played = curves_area([value], None, (120, 400), 2)
    for column in (80, 200, 360):
        at = float(rows_of(between(value, 400)[[column]], 120, 2)[0])
        below, above = played[int(at) + 8, column], played[: int(at) - 8, column]
        expected = 255 + (ramp(value[[column // 2]])[0].astype(float) - 255) * 0.85
        np.testing.assert_allclose(below, expected, atol=6)
        assert (far[int(at) + 8 : 110, column] > 200).all()
        assert (above > 200).all()


def test_unknown_frames_are_a_gap() -> None:
    value = np.full(100, 0.5, np.float32)
    value[40:60] = NAN
    value[50] = 0.8  # one frame alone is a dot
    far, played = curves_area([value], None, (120, 400), 2)
    for image in (far, played):
        assert near(image[10:110:7, 170], "#EFEFEF").all()
        assert near(image[10:110:7, 230], "#EFEFEF").all()
    mask = line_mask(value, (120, 400), 2)
    columns = mask.max(axis=0)
    assert columns[40:150].min() > 0.9
    assert columns[163:190].max() == 0
    assert columns[210:238].max() == 0
    assert columns[200:204].max() > 0.9
    assert np.isnan(between(value, 400)[165:195]).all()


def test_two_curves_and_the_truth_in_their_own_colours() -> None:
    one, two = np.full(100, 0.2, np.float32), np.full(100, 0.5, np.float32)
    _, played = curves_area([one, two], np.full(100, 0.8, np.float32), (121, 300), 2)
    rows = [round(float(rows_of(np.array([level]), 121, 2)[0])) for level in (0.2, 0.5, 0.8)]
    assert near(played[rows[0]], "#0B3C5D").mean() > 0.95
    assert 0.6 < near(played[rows[1]], "#8C510A").mean() < 0.8, "seven tenths of a dash-dot line"
    assert 0.4 < near(played[rows[2]], "#111111").mean() < 0.8  # dashed


def test_strips_hold_a_colour_a_frame() -> None:
    stage = np.array([0, 0, 1, -1])
    far, played = strip(stage_colours(stage), (10, 80))
    for frame, colour in enumerate((STAGE_COLOURS[0], STAGE_COLOURS[0], STAGE_COLOURS[1], "#FFFFFF")):
        assert near(played[:, 20 * frame : 20 * frame + 20], colour, 0).all()
    np.testing.assert_allclose(far[0, 5], (played[0, 5].astype(float) + 255) / 2, atol=1)


@pytest.mark.parametrize("width", [320, 384, 640, 1280])
def test_the_cursor_parts_played_from_to_come(width: int) -> None:
    length = 100
    panel = Panel(story(length), width, width * 3 // 4)
    first, middle, last = (drawn(panel, frame, width) for frame in (0, 50, 99))
    band = np.flatnonzero(near(last, STAGE_COLOURS[0]).sum(axis=1) > 0.2 * width)
    row = band[2]  # above the numbers
    assert near(last[row], STAGE_COLOURS[2]).sum() > 0.25 * width
    assert near(first[row], STAGE_COLOURS[2]).sum() == 0
    cursors = [np.flatnonzero(near(image[row], "#222222", 30)) for image in (first, middle, last)]
    places = [float(cursor.mean()) for cursor in cursors]
    area = places[2] - places[0]
    assert area > 0.8 * width
    assert (places[1] - places[0]) / area == pytest.approx(50 / 99, abs=0.02)
    assert near(middle[row, int(places[1]) + 6 :], STAGE_COLOURS[0]).sum() == 0


def test_values_change_and_the_unknown_has_none() -> None:
    value = np.linspace(0, 1, 50, dtype=np.float32)
    value[30:] = NAN
    panel = Panel(story(50, sarm=value), 384, 384)
    one, two, gone, also = (drawn(panel, frame, 384) for frame in (10, 20, 35, 45))
    high = panel.height // 3  # words
    assert not np.array_equal(one[:high], two[:high])
    square = near(one, ramp(value[[10]])[0])[:high]
    assert square.sum() > 30
    assert near(gone, ramp(value[[10]])[0])[:high].sum() == 0
    rows, columns = np.nonzero(square)
    inside = (slice(rows.min() + 2, rows.max() - 1), slice(columns.min() + 2, columns.max() - 1))
    assert near(gone[inside], "#FFFFFF").all()
    assert near(also[inside], "#FFFFFF").all()


def test_panels_of_every_kind() -> None:
    """Without stages, weights; four curves at the narrowest; one frame; 32 stages; nothing known at all."""
    length = 7
    names = {f"a model with a rather long name {i}": np.linspace(0, 1, length, dtype=np.float32) for i in range(4)}
    bare = HeadView({"sarm": np.full(length, NAN, np.float32)})
    many = HeadView(dict(names), true_stage=np.arange(length) * 4, stage_names=[f"stage {k}" for k in range(32)])
    truth = HeadView(dict(names), truth=np.linspace(0, 1, length, dtype=np.float32))
    alone = HeadView({"sarm": np.ones(1, np.float32)}, true_stage=np.zeros(1, np.int64), stage_names=("all",))
    heights = []
    for head, width in itertools.product((bare, many, truth, alone), (320, 1280)):
        panel = Panel(EpisodeView("episode 0", 10.0, {"sparse": head}), width, 240, ((0, 160, "top"), (164, 156, "wrist")))
        frames = len(next(iter(head.curves.values())))
        assert drawn(panel, frames - 1, width).shape == (panel.height, width, 3)
        assert panel.height % 2 == 0
        heights.append(panel.height)
    assert heights[0] < heights[2]  # as high as what it shows


# Words


@pytest.mark.parametrize(
    "words", ["", "x", "open the drawer " * 30, "unbroken" * 60, "抽屉を開ける" * 20, "افتح الدرج", "🤖\n\ttwo\nlines", "a\x00b", "ζ∂ Ж"]
)
def test_any_words_fit(words: str) -> None:
    (font,) = fonts(words, (13,))
    for width in (10, 90, 300):
        assert width_of(fit(words, font, width), font) <= width
        wrapped = lines(words, font, width, 2)
        assert len(wrapped) <= 2
        assert all(width_of(line, font) <= width for line in wrapped)
        assert tile(words, font, width).shape == (18, width, 3)
    Panel(story(5, title=words, **{words: np.ones(5, np.float32)}), 320, 240)


def test_short_words_are_left_alone_and_long_ones_end_in_an_ellipsis() -> None:
    (font,) = fonts("", (13,))
    assert lines("push the block", font, 300, 2) == ["push the block"]
    assert fit("push the block", font, 60).endswith("…")
    assert lines("push the block to the far end of the table", font, 120, 2)[-1].endswith("…")


def test_the_same_film_twice(tmp_path: Path) -> None:
    episode = episode_of(np.stack([*moving(12)]))
    for name in ("a", "b"):
        render_video(episode, story(12), ["top"], tmp_path / f"{name}.mp4", gif=tmp_path / f"{name}.gif")
    assert (tmp_path / "a.mp4").read_bytes() == (tmp_path / "b.mp4").read_bytes()
    assert (tmp_path / "a.gif").read_bytes() == (tmp_path / "b.gif").read_bytes()


def test_sources_in_other_pixel_formats(tmp_path: Path) -> None:
    """Full range, 4:4:4 and BT.709 are brought to what the film says it is."""
    images = [*moving(8, height=96, width=128)]
    for number, (pix_fmt, options) in enumerate([("yuv444p", {}), ("yuvj420p", {}), ("yuv420p", {"colorspace": "bt709"})]):
        built = build_dataset(tmp_path / f"{number}", lengths=(8,), size=(96, 128))
        video = next(built.root.rglob("*.mp4"))
        with av.open(str(video), "w") as container:
            stream = container.add_stream("libx264", rate=20, options={"crf": "4", **options})
            stream.height, stream.width, stream.pix_fmt = 96, 128, pix_fmt
            for image in images:
                container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
            container.mux(stream.encode())
        out = tmp_path / f"{number}.mp4"
        episode = open_dataset(built.root).episode(0)
        render_video(episode, story(8), [TOP], out)
        source = episode.camera(TOP)[np.arange(8)].repeat(3, axis=1).repeat(3, axis=2)
        shown = plain_decode(out)[:, :288, :384]
        assert np.abs(bright(shown) - bright(source)).mean() < 2.5, pix_fmt
        assert abs(float(shown.mean()) - float(source.mean())) < 1.5, pix_fmt
