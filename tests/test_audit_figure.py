"""The figure of an audit: its axes, its colours, its titles, and what it says where nothing is known."""

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

from milepost.figures.audit import audit_figure
from milepost.metrics import WORDS, EpisodeCurves, Estimate

NAMES = ("frozen_first", "reversed", "shuffled", "cut_50", "regressed", "noise_10")


def curves(*, scaled: bool = True, unknown: tuple[str, ...] = ()) -> list[EpisodeCurves]:
    real = np.linspace(0, 1, 20)
    nothing = np.full(20, np.nan)
    controls = {name: nothing if name in unknown else real for name in NAMES}
    whole = nothing if "real" in unknown else real
    return [EpisodeCurves(index, "task", True, whole, controls, scaled=scaled) for index in range(3)]


def panels(figure: Figure) -> list[Axes]:
    return [each for each in figure.axes if each.get_visible()]


def test_only_the_outer_panels_have_labels() -> None:
    six = panels(audit_figure(curves()))
    assert len(six) == 6
    assert [each.get_ylabel() for each in six] == ["progress", "", "", "", "progress", ""]
    assert [bool(each.get_xlabel()) for each in six] == [False, False, True, True, True, True]  # below the third there is no panel
    assert [label.get_text() for label in six[2].get_xticklabels()] == ["0", "0.5", "1"]
    assert panels(audit_figure(curves(scaled=False)))[0].get_ylabel() == "raw score"


def test_every_edited_curve_is_brown_and_the_real_one_is_seen_behind_it() -> None:
    figure = audit_figure(curves())
    first = panels(figure)[0]
    real, *edited = (line for line in first.lines if len(line.get_xdata()) > 2)
    assert len(edited) == 4
    assert {to_hex(line.get_color()) for line in edited} == {"#8c510a"}
    assert to_hex(real.get_color()) != "#8c510a"
    assert real.get_linewidth() > 2 * max(line.get_linewidth() for line in edited)
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["as recorded, mean", "edited, each episode", "edited, mean"]


def test_titles_have_the_verdict_and_the_numbers() -> None:
    rows = {
        "frozen": Estimate(1.0, 1.0, 1.0, 3),
        "change_noise_10": Estimate(-0.0001, 0.0, 0.0, 3),
        "shuffled": Estimate(np.nan, np.nan, np.nan, 0),
    }
    figure = audit_figure(curves(), title="elapsed on dots\nverdict: clock", rows=rows)
    assert figure.get_suptitle().splitlines() == ["elapsed on dots", "verdict: clock", "3 episodes that succeeded, or may have"]
    titles = {
        name: " ".join(each.get_title(loc="left").split())
        for name, each in zip(sorted(NAMES, key=list(WORDS).index), panels(figure), strict=True)
    }
    assert titles["frozen_first"] == "the first frame, repeated frozen frames keep 1.00 of the rise"
    assert titles["noise_10"].endswith("changes by 0.00 of the rise")
    assert titles["shuffled"] == "the frames in a random order"
    assert titles["regressed"] == "played to two thirds, back to one third, and on to the end"


@pytest.mark.parametrize(
    ("unknown", "says"), [(("shuffled", "real"), "no known values"), (("shuffled",), "edited: no known values"), (("cut_50",), "")]
)
def test_a_panel_without_a_known_curve_says_so(unknown: tuple[str, ...], says: str) -> None:
    figure = audit_figure(curves(unknown=unknown))
    panel = next(each for each in panels(figure) if each.get_title(loc="left").startswith("the frames in a random"))
    assert [text.get_text() for text in panel.texts] == ([says] if says else [])


def test_a_rounded_zero_has_no_sign() -> None:
    assert str(Estimate(-0.0004, -0.004, 0.002, 4)) == "0.000 [0.00, 0.00]"
    assert str(Estimate(-0.001, -0.01, -0.0, 4)) == "-0.001 [-0.01, 0.00]"
