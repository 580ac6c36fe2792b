"""An episode's figure says what the arrays say: captions of exactly the frames drawn, curves, areas, bands, names; nothing cut off."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Polygon, Rectangle, StepPatch
from matplotlib.text import Text

from milepost.core.errors import DataError
from milepost.core.stages import WHOLE, Stages
from milepost.core.types import ArrayFrames, Curve, Episode, Segment
from milepost.figures.episode import EpisodeView, HeadView, episode_figure, sample_frames
from milepost.figures.report import episode_view
from milepost.figures.style import STAGE_COLOURS, png, stage_style, wrap
from milepost.metrics.evaluation import truth_of

FPS = 10.0
SPARSE = Stages(("reach", "carry", "place"), (0.25, 0.5, 0.25))
DENSE = Stages(("approach", "align", "grasp", "move", "release"), (0.2,) * 5)


def numbered_frames(length: int, height: int = 24, width: int = 24) -> np.ndarray:
    """Frame k has k in its first pixel, and a contrast that would show stretching."""
    images = np.full((length, height, width, 3), 100, dtype=np.uint8)
    images[:, 0, 0, 0] = np.arange(length)
    images[:, 1:, :, 1] = 110
    return images


def episode(
    length: int = 40, *, heads: dict[str, Stages] | None = None, cameras: int = 1, size: tuple[int, int] = (24, 24), **more
) -> Episode:
    segments = {}
    for head, stages in (heads or {}).items():
        cuts = np.round(np.cumsum((0, *stages.shares)) * length).astype(int).tolist()
        segments[head] = tuple(Segment(name, cuts[k], cuts[k + 1]) for k, name in enumerate(stages.names) if cuts[k] < cuts[k + 1])
    frames = {f"cam{i}": ArrayFrames(numbered_frames(length, *size) + np.uint8(100 * i)) for i in range(cameras)}
    fields = {"index": 3, "row": 0, "task": "put it away", "fps": FPS, "length": length, "state": np.zeros((length, 2), np.float32)}
    return Episode(**fields | {"cameras": frames, "segments": segments, **more})


def progress(length: int, count: int, unknown: tuple[int, ...] = (), seed: int = 0) -> Curve:
    rng = np.random.default_rng(seed)
    stage = rng.dirichlet(np.ones(count), length).astype(np.float32)
    value = rng.random(length).astype(np.float32)
    value[list(unknown)], stage[list(unknown)] = np.nan, np.nan
    return Curve(value, stage)


def called(curve: Curve, names: tuple[str, ...]) -> Curve:
    return dataclasses.replace(curve, stage_names=tuple(names))


def captions(figure: Figure) -> dict[int, list[str]]:
    """Frame -> the lines under it."""
    found: dict[int, list[str]] = {}
    for text in figure.findobj(lambda artist: str(artist.get_gid()).startswith("caption ")):
        found.setdefault(int(text.get_gid().split()[1]), []).append(text.get_text())
    return found


def images(figure: Figure) -> dict[int, np.ndarray]:
    """Frame -> the pixels drawn."""
    found = figure.findobj(lambda artist: str(artist.get_gid()).startswith("frame "))
    return {int(image.get_gid().split()[1]): np.asarray(image.get_array()) for image in found}


def axes(figure: Figure, label: str):
    return next(ax for ax in figure.axes if ax.get_ylabel() == label)


def line(ax, label: str):
    return next(one for one in ax.lines if one.get_label() == label)


def legend(ax) -> list[str]:
    return [text.get_text() for text in ax.get_legend().get_texts()]


def areas(ax) -> dict[str, np.ndarray]:
    """Stage -> probability as drawn: the thickness of its area."""
    found = {}
    for patch in ax.patches:
        if isinstance(patch, StepPatch) and patch.get_fill():
            values, _, baseline = patch.get_data()
            found[patch.get_label()] = values - baseline
    return found


def assert_nothing_cut_off(figure: Figure) -> None:
    """Every text is inside the figure, and no caption or legend lies over another text."""
    figure.draw_without_rendering()
    whole = figure.bbox
    ticks = {
        label
        for ax in figure.axes
        for axis in (ax.xaxis, ax.yaxis)
        for tick in axis.get_major_ticks()
        for label in (tick.label1, tick.label2)
    }
    texts = [text for text in figure.findobj(Text) if text.get_text().strip() and text.get_visible() and text not in ticks]
    boxes = {text: text.get_window_extent() for text in texts}
    for text, box in boxes.items():
        assert box.x0 >= -1, text
        assert box.y0 >= -1, text
        assert box.x1 <= whole.x1 + 1, text
        assert box.y1 <= whole.y1 + 1, text
    own = [text for text in texts if str(text.get_gid()).startswith("caption ")] + list(figure.texts)
    own += [text for ax in figure.axes if ax.get_legend() for text in ax.get_legend().get_texts()]
    for place, one in enumerate(own):
        for other in own[place + 1 :]:
            a, b = boxes[one], boxes[other]
            wide, high = min(a.x1, b.x1) - max(a.x0, b.x0), min(a.y1, b.y1) - max(a.y0, b.y0)
            assert not (wide > 1 and high > 4), (one, other)


@pytest.mark.parametrize("length", [1, 2, 5, 9, 40, 250])
def test_captions_are_of_the_frames_drawn(length: int) -> None:
    e, said = episode(length, heads={"sparse": SPARSE}), progress(length, 3)
    figure = episode_figure(episode_view(e, {"sparse": {"sarm": called(said, SPARSE.names)}}, {"sparse": SPARSE}))
    drawn, under = images(figure), captions(figure)
    assert list(drawn) == list(under) == sample_frames(length)
    assert {0, length - 1} <= set(drawn)
    assert len(drawn) == min(8, length)
    for frame, pixels in drawn.items():
        assert pixels[0, 0, 0] == frame
        assert under[frame] == [
            f"{frame / FPS:.2f} s, frame {frame}",
            f"progress {said.value[frame]:.2f}",
            f"{said.stage[frame].argmax() + 1} {SPARSE.names[said.stage[frame].argmax()]}",
        ]


def test_a_frames_bar_has_its_stages_colour() -> None:
    e, said = episode(40), progress(40, 3)
    figure = episode_figure(episode_view(e, {"sparse": {"sarm": called(said, SPARSE.names)}}, {}))
    bars = [patch for patch in figure.axes[0].patches if isinstance(patch, Rectangle)]
    likeliest = said.stage[sample_frames(40)].argmax(axis=1)
    assert [to_rgb(bar.get_facecolor()) for bar in bars] == [to_rgb(STAGE_COLOURS[k]) for k in likeliest]


@pytest.mark.parametrize("size", [(96, 96), (480, 640), (240, 135)])
def test_frames_keep_shape_and_contrast(size: tuple[int, int]) -> None:
    e = episode(12, size=size)
    figure = episode_figure(episode_view(e, {"sparse": {"m": called(progress(12, 3), SPARSE.names)}}, {}))
    figure.draw_without_rendering()
    source = numbered_frames(12, *size)
    for image in figure.axes[0].images:
        np.testing.assert_array_equal(np.asarray(image.get_array()), source[int(image.get_gid().split()[1])])
        box = image.get_window_extent()
        assert box.width / box.height == pytest.approx(size[1] / size[0], rel=0.02)
    assert_nothing_cut_off(figure)


def test_curves_truth_bands_and_areas() -> None:
    e, said = episode(40, heads={"sparse": SPARSE}), progress(40, 3)
    figure = episode_figure(episode_view(e, {"sparse": {"sarm": called(said, SPARSE.names)}}, {"sparse": SPARSE}))
    top, bottom = axes(figure, "progress"), axes(figure, "stage probability")
    np.testing.assert_array_equal(line(top, "sarm").get_ydata(), said.value)
    np.testing.assert_allclose(line(top, "sarm").get_xdata(), np.arange(40) / FPS)
    truth = line(top, "truth (annotation)")
    np.testing.assert_array_equal(truth.get_ydata(), truth_of(e, SPARSE).progress)
    assert truth.get_linestyle() == "--"
    assert legend(top) == ["truth (annotation)", "sarm", "1 reach", "2 carry", "3 place"]
    bands = [
        (patch, patch.get_extents().transformed(top.transData.inverted()))
        for patch in top.patches
        if isinstance(patch, Rectangle | Polygon)
    ]
    assert [(round(box.x0, 3), round(box.x1, 3)) for _, box in bands] == [(-0.05, 0.95), (0.95, 2.95), (2.95, 3.95)]
    assert [to_rgb(patch.get_facecolor()) for patch, _ in bands] == [to_rgb(colour) for colour in STAGE_COLOURS[:3]]
    drawn = areas(bottom)
    assert list(drawn) == list(SPARSE.names)
    np.testing.assert_allclose(np.stack(list(drawn.values()), axis=1), said.stage, atol=1e-6)
    cuts = [one.get_xdata()[0] for one in bottom.lines if len(one.get_xdata()) == 2]
    np.testing.assert_allclose(cuts, [0.95, 2.95])
    assert "truth" in [tick.get_text() for tick in bottom.get_yticklabels()]


def test_both_heads_sparse_above_dense() -> None:
    stages = {"sparse": SPARSE, "dense": DENSE}
    e, said = episode(40, heads=stages), {"sparse": progress(40, 3), "dense": progress(40, 5, seed=1)}
    figure = episode_figure(episode_view(e, {head: {"sarm": called(said[head], stages[head].names)} for head in stages}, stages))
    labels = ["sparse progress", "sparse stages", "dense progress", "dense stages"]
    assert [ax.get_ylabel() for ax in figure.axes[1:]] == labels
    tops = [axes(figure, label).get_position().y1 for label in labels]
    assert tops == sorted(tops, reverse=True)
    for head in stages:
        np.testing.assert_array_equal(line(axes(figure, f"{head} progress"), "sarm").get_ydata(), said[head].value)
        np.testing.assert_allclose(np.stack(list(areas(axes(figure, f"{head} stages")).values()), 1), said[head].stage, atol=1e-6)
    for frame, lines in captions(figure).items():
        assert lines[1] == f"sparse {said['sparse'].value[frame]:.2f}"
        assert lines[3] == f"dense {said['dense'].value[frame]:.2f}"
        stage = said["dense"].stage[frame].argmax()
        assert lines[4] == f"{stage + 1} {DENSE.names[stage]}"
    assert_nothing_cut_off(figure)


def test_unknown_frames_are_a_gap_and_counted() -> None:
    unknown = (0, 10, 11, 12, 14)
    e, said = episode(40), progress(40, 3, unknown)
    figure = episode_figure(episode_view(e, {"sparse": {"sarm": called(said, SPARSE.names)}}, {}))
    assert "sarm: 5 of 40 frames have no progress" in figure.texts[0].get_text()
    assert captions(figure)[0] == ["0.00 s, frame 0", "progress unknown"]
    drawn = np.stack(list(areas(axes(figure, "stage probability")).values()), axis=1)
    assert np.flatnonzero(np.isnan(drawn).any(axis=1)).tolist() == list(unknown)
    dots = [one for one in axes(figure, "progress").lines if one.get_marker() == "o"]
    assert [dot.get_xdata().tolist() for dot in dots] == [[1.3]], "a known frame between unknown ones is a dot"


def test_computed_frames_are_dots() -> None:
    head = HeadView({"m": np.linspace(0, 1, 21, dtype=np.float32)}, computed=(0, 10, 20))
    figure = episode_figure(EpisodeView("t", FPS, {"sparse": head}))
    dots = next(one for one in axes(figure, "progress").lines if one.get_marker() == "o")
    np.testing.assert_allclose(dots.get_xdata(), [0, 1, 2])


def test_one_frame_without_truth_or_camera() -> None:
    e = episode(1, cameras=0)
    for said in (called(progress(1, 3), SPARSE.names), Curve(np.full(1, np.nan, np.float32))):
        figure = episode_figure(episode_view(e, {"sparse": {"m": said}}, {}))
        assert not images(figure)
        assert not captions(figure)
        assert png(figure).startswith(b"\x89PNG")
        assert axes(figure, "progress").get_xlim() == pytest.approx((-0.05, 0.05))
        assert_nothing_cut_off(figure)


def test_another_camera_and_an_unknown_one() -> None:
    e, said = episode(12, cameras=2), {"sparse": {"m": called(progress(12, 3), SPARSE.names)}}
    assert images(episode_figure(episode_view(e, said, {}, "cam1")))[11][0, 0, 0] == 111
    with pytest.raises(DataError, match="no camera 'cam7'; this dataset has: cam0, cam1"):
        episode_view(e, said, {}, "cam7")


def test_more_stages_than_colours_and_long_names() -> None:
    names = tuple(f"{verb} the container " + "without touching anything " * (k % 3) for k, verb in enumerate("abcdefghijk"))
    names = (*names, "one_word_that_is_far_too_long_for_any_line_of_a_legend_or_a_caption_and_yet_a_name")
    stages = Stages(names, (1 / 12,) * 12)
    e = episode(120, heads={"sparse": stages}, task="move every container " * 20 + "for $5, not $6 or {x}_y^2", columns={})
    figure = episode_figure(
        episode_view(e, {"sparse": {"a model with quite a long name": called(progress(120, 12), names)}}, {"sparse": stages})
    )
    assert_nothing_cut_off(figure)
    looks = [(stage_style(k)["facecolor"], stage_style(k)["hatch"]) for k in range(32)]
    assert len(set(looks)) == 32
    shown = "".join("".join(legend(axes(figure, "progress"))).split())
    assert all("".join(f"{k + 1} {name}".split()) in shown for k, name in enumerate(names))
    assert "for $5, not $6 or {x}_y^2" in " ".join(figure.texts[0].get_text().split())


def test_lines_lose_no_letter() -> None:
    text = "a bb_ccc " + "d" * 80 + " e"
    lines = wrap(text, 0.8, 7.0)
    assert "".join("".join(lines).split()) == "".join(text.split())
    assert len(lines) > 3
    assert wrap("", 1.0, 7.0) == [""]


def test_many_curves_are_told_apart() -> None:
    e = episode(12)
    said = {f"m{k}": Curve(np.full(12, k / 10, np.float32)) for k in range(9)}
    ax = axes(episode_figure(episode_view(e, {"sparse": said}, {})), "progress")
    drawn = [line(ax, name) for name in said]
    assert len({(one.get_color(), str(one.get_linestyle())) for one in drawn}) == 9
    assert captions(ax.figure)[0][1] == "m0 0.00"


def test_a_model_with_other_stages_keeps_the_datasets_colours() -> None:
    """Names decide, not places: a shared stage has one colour in truth and prediction, whatever the model's order."""
    e, said = episode(40, heads={"sparse": SPARSE}), progress(40, 3)
    shown = episode_view(e, {"sparse": {"m": called(said, ("carry", "wipe", "reach"))}}, {"sparse": SPARSE}).heads["sparse"]
    assert list(shown.stage_names) == ["reach", "carry", "place", "wipe"]
    np.testing.assert_array_equal(
        shown.probabilities["m"], np.stack([said.stage[:, 2], said.stage[:, 0], np.zeros(40), said.stage[:, 1]], 1)
    )


def test_one_stage_is_no_panel() -> None:
    """It would be one colour throughout: alone, beside others, and as the dataset's only stage."""
    e = episode(12)
    task, three = called(progress(12, 1), ("task",)), called(progress(12, 3), SPARSE.names)
    alone = episode_view(e, {"sparse": {"one": task}}, {"sparse": WHOLE}).heads["sparse"]
    assert (alone.probabilities, list(alone.stage_names), alone.true_stage) == ({}, [], None)
    figure = episode_figure(episode_view(e, {"sparse": {"one": task}}, {}))
    assert not [patch for ax in figure.axes for patch in (*ax.patches, *ax.artists) if patch.get_visible()]
    shown = episode_view(e, {"sparse": {"one": task, "three": three}}, {})
    assert list(shown.heads["sparse"].probabilities) == ["three"]
    assert_nothing_cut_off(episode_figure(shown))


def test_the_simulators_truth_is_the_sparse_one() -> None:
    columns = {"truth.progress": np.linspace(0, 1, 40, dtype=np.float32), "truth.stage": np.repeat([0, 2], 20)}
    e = episode(40, heads={"dense": DENSE}, columns=columns)
    assert truth_of(e, SPARSE, "sparse").source == "simulator"
    assert truth_of(e, DENSE, "dense").source == "annotation"
    plain = dataclasses.replace(e, segments={})
    assert (truth_of(plain, DENSE, "dense").stage == -1).all()
    shown = episode_view(plain, {"sparse": {"m": called(progress(40, 3), SPARSE.names)}}, {"sparse": SPARSE}).heads["sparse"]
    assert shown.truth_source == "simulator"
    np.testing.assert_array_equal(shown.true_stage, columns["truth.stage"])


def test_success_is_said_if_known() -> None:
    said = {"sparse": {"m": called(progress(12, 3), SPARSE.names)}}
    titles = [
        episode_view(episode(12, facts=facts), said, {}).title for facts in ({}, {"success": False, "kind": "slip"}, {"success": True})
    ]
    assert titles == ["episode 3: put it away", "episode 3: put it away (slip, failure)", "episode 3: put it away (success)"]


def test_weights_are_the_last_strip() -> None:
    e = episode(12)
    figure = episode_figure(episode_view(e, {"sparse": {"m": called(progress(12, 3), SPARSE.names)}}, {}, weight=np.linspace(0, 1, 12)))
    assert figure.axes[-1].get_ylabel() == "weight"
    np.testing.assert_allclose(np.asarray(figure.axes[-1].images[0].get_array())[0], np.linspace(0, 1, 12))
    assert figure.axes[-1].get_xlabel() == "time (s)"
    assert_nothing_cut_off(figure)


def test_same_figure_same_bytes() -> None:
    said = {"sparse": {"m": called(progress(12, 3), SPARSE.names)}}
    assert png(episode_figure(episode_view(episode(12), said, {}))) == png(episode_figure(episode_view(episode(12), said, {})))


def test_areas_are_numbered_where_they_are_thick() -> None:
    stage = np.zeros((40, 3), np.float32)
    stage[:20, 0], stage[20:, 0] = 0.9, 0.1
    stage[:, 1], stage[:, 2] = 0.1, 0.0
    stage[20:, 2] = 0.8
    said = Curve(np.full(40, 0.5, np.float32), stage, SPARSE.names)
    numbers = axes(episode_figure(episode_view(episode(40), {"sparse": {"m": said}}, {})), "stage probability").texts
    where = {text.get_text(): tuple(np.round(text.get_position(), 2).tolist()) for text in numbers}
    assert where == {"1": (0.9, 0.45), "3": (2.9, 0.6)}
    even = Curve(np.full(40, 0.5, np.float32), np.full((40, 3), 1 / 3, np.float32), SPARSE.names)
    numbers = axes(episode_figure(episode_view(episode(40), {"sparse": {"m": even}}, {})), "stage probability").texts
    assert [text.get_text() for text in numbers] == ["1", "2", "3"]


def strided(length: int = 60, stride: int = 10) -> EpisodeView:
    """Looked at every `stride` frames, four true stages, one of them short."""
    said = progress(length, 3)
    assert said.stage is not None
    stage = np.full_like(said.stage, np.nan)
    stage[::stride] = said.stage[::stride]
    e = episode(length, heads={"sparse": SPARSE})
    return episode_view(e, {"sparse": {"m": Curve(said.value, stage, SPARSE.names)}}, {"sparse": SPARSE})


def test_what_lies_between_frames_looked_at_is_pale() -> None:
    figure = episode_figure(strided())
    veils = figure.findobj(lambda artist: artist.get_gid() == "interpolated")
    spans = [(veil.get_x(), veil.get_x() + veil.get_width()) for veil in veils]
    assert spans == [(pytest.approx(at / FPS + 0.05), pytest.approx((at + 10) / FPS - 0.05)) for at in range(0, 50, 10)]
    assert "interpolated" in figure.texts[0].get_text()
    plain = episode_figure(episode_view(episode(60), {"sparse": {"m": called(progress(60, 3), SPARSE.names)}}, {}))
    assert not plain.findobj(lambda artist: artist.get_gid() == "interpolated")


@settings(max_examples=15, deadline=None)
@given(st.integers(2, 200), st.integers(2, 12), st.sampled_from([3.0, 3.4, 5.0, 7.0, 9.0]), st.integers(0, 5))
def test_stage_numbers_touch_no_line(length: int, count: int, width: float, seed: int) -> None:
    """Numbers of the probabilities and of the bands stand between the borders of the true stages, whatever the width."""
    rng = np.random.default_rng(seed)
    names = tuple(f"stage {k}" for k in range(count))
    true = np.sort(rng.integers(0, count, length))
    stage = rng.dirichlet(np.full(count, 0.1), length).astype(np.float32)
    curve = np.linspace(0, 1, length).astype(np.float32)
    head = HeadView({"m": curve}, truth=curve, true_stage=true, stage_names=names, probabilities={"m": stage})
    figure = episode_figure(EpisodeView("episode 0", FPS, {"sparse": head}), width)
    figure.draw_without_rendering()
    borders = [(start - 0.5) / FPS for start in np.flatnonzero(np.diff(true)) + 1]
    for label in ("progress", "stage probability"):
        ax = axes(figure, label)
        x = [ax.transData.transform((border, 0))[0] for border in borders]
        numbers = [text for text in ax.texts if text.get_text().isdigit()]
        for text in numbers:
            box = text.get_window_extent()
            assert not any(box.x0 < at < box.x1 for at in x), (label, text.get_text())


@pytest.mark.parametrize("width", [3.0, 3.4, 5.9, 7.0])
def test_a_column_of_a_page(width: float) -> None:
    """All letters inside and apart, of the size they always have; fewer frames, each at least 0.9 inches wide; marks over those drawn."""
    e = episode(40, heads={"sparse": SPARSE})
    said = {"a model": called(progress(40, 3), SPARSE.names), "a clock": Curve(np.linspace(0, 1, 40, dtype=np.float32))}
    figure = episode_figure(episode_view(e, {"sparse": said}, {"sparse": SPARSE}, weight=np.linspace(0, 1, 40)), width)
    assert figure.get_figwidth() == width
    assert_nothing_cut_off(figure)
    assert min(text.get_fontsize() for text in figure.findobj(Text) if text.get_text().strip()) >= 7
    drawn = images(figure)
    assert list(drawn) == list(captions(figure))
    assert {0, 39} <= set(drawn)
    assert len(drawn) == int((width - 0.24 + 0.08) / 0.98)
    marks = [line.get_xdata()[0] for line in axes(figure, "progress").lines if line.get_marker() == "v"]
    assert marks == [pytest.approx(at / FPS) for at in drawn]
    entries = [text.get_text() for ax in figure.axes if ax.get_legend() for text in ax.get_legend().get_texts()]
    assert entries == ["truth (annotation)", "a model", "a clock", "1 reach", "2 carry", "3 place"]


def test_too_narrow_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 3 inches"):
        episode_figure(strided(), 2.0)
