"""An annotation's figure: the middle frame of every stage, its name and times; timelines of both heads; what repeats disagree on."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.text import Text

from milepost.core.types import Segment
from milepost.figures.annotation import AnnotationView, HeadTimeline, annotation_figure, middle_frame
from milepost.figures.style import STAGE_COLOURS, png

NAMES = ("reach", "carry", "place")
SEGMENTS = (Segment("reach", 0, 12), Segment("carry", 12, 31), Segment("place", 31, 40))


def frames(segments, size=(24, 32)) -> np.ndarray:
    """Frame k has k in its pixels."""
    return np.stack([np.full((*size, 3), middle_frame(segment), np.uint8) for segment in segments])


def drawn(head: HeadTimeline, **more: HeadTimeline) -> Figure:
    return annotation_figure(AnnotationView("episode 3: put it away", 10.0, 40, {"sparse": head, **more}))


def words(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.findobj(Text) if text.get_text().strip()]


def bars(ax) -> list[tuple[float, float, tuple]]:
    """(from, to, colour) of the coloured boxes of a timeline's bar, in seconds."""
    boxes = [patch for patch in ax.patches if isinstance(patch, Rectangle) and patch.get_height() == pytest.approx(0.26)]
    return [(box.get_x(), box.get_x() + box.get_width(), tuple(box.get_facecolor()[:3])) for box in boxes[1:]]


def inside(figure: Figure) -> None:
    """No text leaves the figure."""
    figure.canvas.draw()  # places the axes' labels
    box = figure.bbox
    renderer = figure.canvas.get_renderer()
    for text in figure.findobj(Text):
        if text.get_visible() and text.get_text().strip():
            place = text.get_window_extent(renderer)
            assert place.x0 >= -1, text
            assert place.x1 <= box.x1 + 1, text
            assert place.y0 >= -1, text
            assert place.y1 <= box.y1 + 1, text


def test_frames_names_and_times() -> None:
    figure = drawn(HeadTimeline(SEGMENTS, NAMES, frames(SEGMENTS)))
    pictures, timeline = figure.axes
    assert [image.get_gid() for image in pictures.images] == ["frame 5", "frame 21", "frame 35"]
    assert [int(np.asarray(image.get_array())[0, 0, 0]) for image in pictures.images] == [5, 21, 35]
    said = words(figure)
    for line in ("0.00 to 1.20 s", "1 reach", "1.20 to 3.10 s", "2 carry", "3.10 to 4.00 s", "3 place", "time (s)", "sparse"):
        assert line in said
    assert bars(timeline) == [
        (pytest.approx(s.start / 10), pytest.approx(s.stop / 10), to_rgb(STAGE_COLOURS[k])) for k, s in enumerate(SEGMENTS)
    ]
    inside(figure)


def test_sparse_stands_above_dense() -> None:
    dense = (Segment("grasp", 0, 20), Segment("lift", 20, 40))
    figure = drawn(HeadTimeline(SEGMENTS, NAMES, frames(SEGMENTS)), dense=HeadTimeline(dense, ("grasp", "lift"), frames(dense)))
    labels = {ax.get_ylabel(): ax.get_position().y0 for ax in figure.axes if ax.get_ylabel()}
    assert labels["sparse"] > labels["dense"]
    inside(figure)


def test_a_stage_keeps_its_colour_where_others_are_missing() -> None:
    figure = drawn(HeadTimeline((Segment("carry", 0, 30),), NAMES))
    assert bars(figure.axes[1]) == [(0, 3, to_rgb(STAGE_COLOURS[1]))]
    assert "2 carry" in words(figure)


def test_disagreement_is_marked() -> None:
    other = (Segment("reach", 0, 9), Segment("carry", 9, 33), Segment("place", 33, 40))
    head = HeadTimeline(SEGMENTS, NAMES, None, [(12, 9, 12), (31, 31, 33)], [SEGMENTS, other, None], "2 of 3 agree")
    figure = drawn(head)
    timeline = figure.axes[1]
    spans = sorted((round(min(line.get_xdata()), 6), round(max(line.get_xdata()), 6)) for line in timeline.lines)
    assert (0.9, 1.2) in spans
    assert (3.1, 3.3) in spans
    assert " failed" in words(figure)
    assert any("2 of 3 agree" in line for line in words(figure))
    assert len([patch for patch in timeline.patches if isinstance(patch, Rectangle) and patch.get_height() == pytest.approx(0.08)]) == 6
    inside(figure)


@settings(max_examples=12, deadline=None)
@given(st.integers(1, 24), st.text("aWm .,$_{}^\\%#", min_size=1, max_size=120), st.booleans())
def test_any_number_of_any_names(count, name, portrait) -> None:
    names = tuple(f"{name} {k}" for k in range(count))
    segments = [Segment(each, k, k + 1) for k, each in enumerate(names)]
    figure = drawn(HeadTimeline(segments, names, frames(segments, (40, 12) if portrait else (24, 32))))
    pictures = figure.axes[0].images
    assert len(pictures) == count
    left, right, bottom, top = pictures[0].get_extent()
    assert (right - left) / (bottom - top) == pytest.approx(12 / 40 if portrait else 32 / 24)
    assert bottom - top <= 1.5 + 1e-9


def test_the_same_bytes_twice() -> None:
    head = HeadTimeline(SEGMENTS, NAMES, frames(SEGMENTS))
    assert png(drawn(head)) == png(drawn(head))
