"""Every fault and repair by hand; any valid segmentation survives any notation; noise is repaired, garbage is named."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from milepost.annotation.checks import Checked, Rules, check_reply, check_segments, match, trivial_answer
from milepost.annotation.faults import Fault, reask
from milepost.annotation.sampling import every_frame, sample_frames
from milepost.annotation.subtasks import Subtask, SubtaskList
from milepost.core.errors import DataError
from milepost.core.types import Segment

STAGES = SubtaskList.from_flag("reach the cube, grasp it, lift")
LOOSE = SubtaskList((Subtask("reach"), Subtask("grasp", repeatable=True), Subtask("rest", optional=True), Subtask("lift")))
SAMPLE = sample_frames(300, 30.0)  # 10 s at 2 Hz: tolerance 1 s


def answer(*claims: tuple[str, object, object]) -> str:
    return json.dumps({"subtasks": [{"name": name, "start": start, "end": stop} for name, start, stop in claims]})


def ask(*claims: tuple[str, object, object], stages: SubtaskList = STAGES, **settings) -> Checked:
    return check_reply(answer(*claims), stages, SAMPLE, **settings)


def kinds(checked: Checked) -> list[str]:
    return [fault.kind for fault in checked.faults]


def frames(checked: Checked) -> list[tuple[str, int, int]]:
    assert checked.segments is not None, checked.faults
    return [(segment.name, segment.start, segment.stop) for segment in checked.segments]


GOOD = [("reach the cube", 0, 105), ("grasp it", 105, 195), ("lift", 195, 300)]


def test_a_good_answer_needs_nothing() -> None:
    checked = ask(("reach the cube", 0.0, 3.5), ("grasp it", 3.5, 6.5), ("lift", 6.5, 10.0))
    assert frames(checked) == GOOD
    assert checked == Checked(checked.segments)


@pytest.mark.parametrize(
    ("claims", "expected", "kind", "moved"),
    [
        # case, punctuation, articles, numbering, a slip of the pen
        ([("Reach cube", 0.0, 3.5), ("grasp it", 3.5, 6.5), ("lift", 6.5, 10.0)], GOOD, "unknown name", 0),
        ([("reach the cube", 0.0, 3.5), ("2. Grasp it!", 3.5, 6.5), ("lift", 6.5, 10.0)], GOOD, "unknown name", 0),
        ([("reach the cube", 0.0, 3.5), ("grsp it", 3.5, 6.5), ("lift", 6.5, 10.0)], GOOD, "unknown name", 0),
        ([("reach the cube", 0.0, 3.5), ("grasp it", 3.5, 6.5), ("lift: the arm rises", 6.5, 10.0)], GOOD, "unknown name", 0),
        # entries out of order; an entry in two halves
        ([("lift", 6.5, 10.0), ("reach the cube", 0.0, 3.5), ("grasp it", 3.5, 6.5)], GOOD, "order", 0),
        ([("reach the cube", 0.0, 3.5), ("grasp it", 3.5, 5.0), ("grasp it", 5.2, 6.5), ("lift", 6.5, 10.0)], GOOD, "repeated", 0),
        # a gap and an overlap of 1 s: half of it each
        ([("reach the cube", 0.0, 3.0), ("grasp it", 4.0, 6.5), ("lift", 6.5, 10.0)], GOOD, "gap", 0.5),
        ([("reach the cube", 0.0, 3.5), ("grasp it", 3.5, 7.0), ("lift", 6.0, 10.0)], GOOD, "overlap", 0.5),
        # the ends
        ([("reach the cube", 0.8, 3.5), ("grasp it", 3.5, 6.5), ("lift", 6.5, 10.0)], GOOD, "coverage", 0.8),
        ([("reach the cube", 0.0, 3.5), ("grasp it", 3.5, 6.5), ("lift", 6.5, 9.97 - 0.5)], GOOD, "coverage", 0.53),
        ([("reach the cube", -0.5, 3.5), ("grasp it", 3.5, 6.5), ("lift", 6.5, 10.0)], GOOD, "past the end", 0.5),
        ([("reach the cube", 0.0, 3.5), ("grasp it", 3.5, 6.5), ("lift", 6.5, 10.9)], GOOD, "past the end", 0.9),
    ],
)
def test_small_faults_are_repaired_and_recorded(claims, expected, kind, moved) -> None:
    checked = ask(*claims)
    assert frames(checked) == expected
    assert not checked.faults
    (repair,) = checked.repairs
    assert repair.kind == kind
    assert checked.moved_s == pytest.approx(moved)


@pytest.mark.parametrize(
    ("claims", "found", "words"),
    [
        (
            [("reach the cup", 0.0, 3.5), ("grasp it", 3.5, 6.5), ("lift", 6.5, 10.0)],
            ["unknown name"],
            "'reach the cup' is not in the list",
        ),
        ([("wave", 0.0, 3.5), ("dance", 3.5, 10.0)], ["unknown name"] * 2, "'lift'"),
        ([("grasp it", 0.0, 3.5), ("reach the cube", 3.5, 6.5), ("lift", 6.5, 10.0)], ["order"], "the list has it before"),
        ([("reach the cube", 0.0, 2.9), ("grasp it", 4.0, 6.5), ("lift", 6.5, 10.0)], ["gap"], "gap of 1.10 s"),
        ([("reach the cube", 0.0, 3.5), ("grasp it", 3.5, 8.0), ("lift", 6.5, 10.0)], ["overlap"], "an overlap of 1.50 s"),
        ([("reach the cube", 1.5, 3.5), ("grasp it", 3.5, 6.5), ("lift", 6.5, 10.0)], ["coverage"], "before the first stage"),
        ([("reach the cube", 0.0, 3.5), ("grasp it", 3.5, 6.5), ("lift", 6.5, 8.5)], ["coverage"], "after the last stage"),
        ([("reach the cube", 0.0, 3.5), ("grasp it", 3.5, 6.5), ("lift", 6.5, 60.0)], ["past the end"], "10.00 s"),
        ([("reach the cube", 0.0, 3.5), ("grasp it", 6.5, 3.5), ("lift", 6.5, 10.0)], ["reversed"], "ends before it starts"),
        ([("reach the cube", 0.0, 3.5), ("grasp it", 3.5, 3.5), ("lift", 3.5, 10.0)], ["too short"], "lasts no time"),
        ([("reach the cube", 0.0, 3.5), ("grasp it", 3.5, 3.6), ("lift", 3.6, 10.0)], ["too short"], "less than 0.20 s"),
        ([("reach the cube", 0.0, 3.5), ("lift", 3.5, 10.0)], ["missing"], "'grasp it' is missing"),
        (
            [("reach the cube", 0.0, 3.5), ("grasp it", 3.5, 5.0), ("reach the cube", 5.0, 6.0), ("lift", 6.0, 10.0)],
            ["repeated"],
            "2 times",
        ),
        ([("grasp it", 0.0, 1.0), ("grasp it", 3.5, 5.0), ("lift", 6.0, 10.0)], ["repeated", "missing"], "2 times"),
        ([("reach the cube", 0.0, 0.35), ("grasp it", 0.35, 0.65), ("lift", 0.65, 1.0)], ["coverage"], "9.00 s"),
        ([], ["missing"] * 3, "'reach the cube' is missing"),
    ],
)
def test_large_faults_are_named(claims, found, words) -> None:
    checked = ask(*claims)
    assert checked.segments is None
    assert sorted(set(kinds(checked))) == sorted(set(found))
    assert words in reask(checked.faults)


def test_faults_of_reading_pass_through() -> None:
    assert kinds(check_reply("no", STAGES, SAMPLE)) == ["no JSON"]
    assert kinds(check_reply(answer(*GOOD)[:-20], STAGES, SAMPLE)) == ["cut off"]
    assert kinds(ask(("reach the cube", "early", 1.0))) == ["unreadable time"]


def test_whole_seconds_are_kept_but_asked_again() -> None:
    for notation in ((0, 3, 7, 10), ("00:00", "00:03", "00:07", "00:10")):
        checked = ask(*((name, a, b) for name, a, b in zip(STAGES.names, notation, notation[1:], strict=False)))
        assert frames(checked) == [("reach the cube", 0, 90), ("grasp it", 90, 210), ("lift", 210, 300)]
        (fault,) = checked.faults
        assert (fault.kind, fault.fatal) == ("whole seconds", False)
    coarse = sample_frames(300, 30.0, rate_hz=0.5)
    claims = [("reach the cube", 0, 3), ("grasp it", 3, 7), ("lift", 7, 10)]
    assert not check_reply(answer(*claims), STAGES, coarse).faults  # nobody could have been finer
    inclusive = [("reach the cube", "00:00", "00:02"), ("grasp it", "00:03", "00:06"), ("lift", "00:07", "00:10")]
    assert frames(ask(*inclusive)) == [("reach the cube", 0, 75), ("grasp it", 75, 195), ("lift", 195, 300)]


def test_optional_and_repeatable_stages() -> None:
    claims = [("reach", 0.0, 2.0), ("grasp", 2.0, 4.0), ("lift", 4.0, 10.0)]
    assert [name for name, *_ in frames(ask(*claims, stages=LOOSE))] == ["reach", "grasp", "lift"]
    never = ask(*claims[:2], ("rest", 4.0, 4.0), claims[2], stages=LOOSE)
    assert frames(never) == frames(ask(*claims, stages=LOOSE))
    assert "did not happen" in never.repairs[0].message
    again = [("reach", 0.0, 2.0), ("grasp", 2.0, 4.0), ("rest", 4.0, 5.0), ("grasp", 5.0, 6.0), ("grasp", 6.0, 7.0), ("lift", 7.0, 10.0)]
    assert [name for name, *_ in frames(ask(*again, stages=LOOSE))] == ["reach", "grasp", "rest", "grasp", "grasp", "lift"]
    assert kinds(ask(*claims, ("reach", 9.0, 10.0), stages=LOOSE)) == ["repeated"]


def test_a_failed_attempt_may_stop_early() -> None:
    claims = [("reach the cube", 0.0, 4.0), ("grasp it", 4.0, 10.0)]
    assert kinds(ask(*claims)) == kinds(ask(*claims, success=True)) == ["missing"]
    assert frames(ask(*claims, success=False)) == [("reach the cube", 0, 120), ("grasp it", 120, 300)]
    assert kinds(ask(("reach the cube", 0.0, 4.0), ("lift", 4.0, 10.0), success=False)) == ["missing"]
    assert set(kinds(ask(success=False))) == {"missing"}


def test_a_list_that_does_not_cover_leaves_gaps() -> None:
    stages = SubtaskList(STAGES.subtasks, covers=False)
    checked = ask(("reach the cube", 1.5, 3.0), ("grasp it", 5.0, 6.0), ("lift", 6.4, 8.0), stages=stages)
    assert frames(checked) == [("reach the cube", 45, 90), ("grasp it", 150, 186), ("lift", 186, 240)]
    assert kinds(ask(("reach the cube", 1.5, 5.0), ("grasp it", 2.0, 6.0), ("lift", 6.4, 8.0), stages=stages)) == ["overlap"]


@pytest.mark.parametrize(
    ("said", "meant"),
    [
        ("pick up red cube", "Pick up the red cube."),
        ("STEP 2: open the drawer", "open the drawer"),
        ("open the drawr", "open the drawer"),
        ("grab side and do 2nd fold", "Grab side and do 2nd fold"),
        ("grab side and do 4th fold", None),
        ("close the drawer", None),
        ("unopen the drawer", None),
        ("drawer", None),
        ("", None),
        ("put the cube left", None),
        ("put the cube rigth", "put the cube right"),
    ],
)
def test_names_are_matched_by_words(said: str, meant: str | None) -> None:
    known = ["Pick up the red cube.", "open the drawer", "Grab side and do 2nd fold", "Grab side and do 3rd fold", "put the cube right"]
    assert match(said, known) == meant


def test_a_name_between_two_is_none() -> None:
    assert match("place cubes", ["place cubesa", "place cubesb"]) is None


def test_tolerance_follows_the_episode_and_the_frames() -> None:
    assert Rules().tolerance(sample_frames(300, 30.0)) == pytest.approx(1.0)
    assert Rules().tolerance(sample_frames(150, 30.0)) == pytest.approx(1.01 * 15 / 30)
    assert Rules().tolerance(every_frame(150, 30.0)) == pytest.approx(0.5)
    assert Rules().tolerance(sample_frames(18000, 30.0)) == pytest.approx(1.01 * 152 / 30)
    with pytest.raises(DataError):
        Rules(tolerance_s=-1.0)


def test_a_persons_segments_are_checked_as_strictly() -> None:
    segments = tuple(Segment(*each) for each in GOOD)
    assert check_segments(segments, STAGES, 300, 30.0) == Checked(segments)
    assert kinds(check_segments(segments[:2], STAGES, 300, 30.0)) == ["missing"]
    moved = (segments[0], Segment("grasp it", 108, 195), segments[2])
    assert kinds(check_segments(moved, STAGES, 300, 30.0)) == ["gap"]
    assert kinds(check_segments((*segments[:2], Segment("lift", 195, 310)), STAGES, 300, 30.0)) == ["past the end"]


def test_what_need_not_be_asked() -> None:
    assert trivial_answer(SubtaskList.from_flag("task"), 9) == (Segment("task", 0, 9),)
    assert trivial_answer(STAGES, 9) is None
    assert trivial_answer(SubtaskList((Subtask("task"),), covers=False), 9) is None


def test_nothing_to_say_is_not_said() -> None:
    with pytest.raises(ValueError, match="without faults"):
        reask([])
    assert "it is wrong" in reask([Fault("order", "it is wrong")])


def clock(time: float) -> str:
    return f"{int(time // 60):02d}:{time % 60:06.3f}" if time % 60 < 59.9995 else f"{int(time // 60) + 1:02d}:00.000"


NOTATIONS = {
    "seconds": lambda t: round(t, 3),
    "words": lambda t: f"{t:.3f} s",
    "MM:SS.f": clock,
    "HH:MM:SS.f": lambda t: f"{int(t // 3600):02d}:{clock(t % 3600)}",
}


@st.composite
def segmentations(draw, shortest: float = 0.25, fps_of=(5.0, 10.0, 24.0, 29.97, 30.0, 60.0)):
    """(names, fps, borders): each stage at least `shortest` seconds and a frame."""
    fps = draw(st.sampled_from(fps_of))
    count = draw(st.integers(1, 6))
    least = int(np.ceil(shortest * fps))
    spans = draw(st.lists(st.integers(least, least + int(30 * fps)), min_size=count, max_size=count))
    return [f"stage {chr(97 + k)}{k}" for k in range(count)], fps, [0, *np.cumsum(spans).tolist()]


WRAPS = ["{}", "Sure!\n```json\n{}\n```\nDone [ok].", "<think>{{hm</think>{}", "The robot reaches. {}"]


@settings(deadline=None)
@given(segmentations(), st.sampled_from(sorted(NOTATIONS)), st.booleans(), st.sampled_from(WRAPS))
def test_any_segmentation_in_any_notation_comes_back(case, notation, nested, wrap) -> None:
    names, fps, edges = case
    stages = SubtaskList(tuple(Subtask(name) for name in names))
    entries = []
    for name, start, stop in zip(stages.names, edges, edges[1:], strict=False):
        times = {"start": NOTATIONS[notation](start / fps), "end": NOTATIONS[notation](stop / fps)}
        entries.append({"name": name, "timestamps": times} if nested else {"name": name, **times})
    checked = check_reply(wrap.format(json.dumps({"subtasks": entries})), stages, sample_frames(edges[-1], fps))
    assert frames(checked) == list(zip(stages.names, edges, edges[1:], strict=False))
    assert not checked.repairs
    assert not checked.faults


@settings(deadline=None)
@given(segmentations())
def test_frame_numbers_come_back(case) -> None:
    names, fps, edges = case
    stages = SubtaskList(tuple(Subtask(name) for name in names))
    entries = [
        {"name": name, "start_frame": start + 1, "end_frame": min(stop + 1, edges[-1])}
        for name, start, stop in zip(stages.names, edges, edges[1:], strict=False)
    ]
    checked = check_reply(json.dumps(entries), stages, every_frame(edges[-1], fps))
    assert frames(checked) == list(zip(stages.names, edges, edges[1:], strict=False))


@settings(deadline=None)
@given(segmentations(fps_of=(5.0, 10.0, 30.0, 60.0), shortest=1.0), st.sampled_from(["{:d}", '"{:02d}:{:02d}"', '"{:02d}:{:02d}:{:02d}"']))
def test_whole_seconds_come_back(case, form) -> None:
    names, fps, edges = case
    stages = SubtaskList(tuple(Subtask(name) for name in names))
    seconds = [round(edge / fps) for edge in edges]
    if len(set(seconds)) < len(seconds):
        return
    parts = {1: lambda t: (t,), 2: lambda t: divmod(t, 60), 3: lambda t: (t // 3600, t // 60 % 60, t % 60)}[form.count("{")]
    text = [form.format(*parts(second)) for second in seconds]
    entries = ", ".join(f'{{"name": "{n}", "start": {a}, "end": {b}}}' for n, a, b in zip(stages.names, text, text[1:], strict=False))
    checked = check_reply(f"[{entries}]", stages, sample_frames(round(seconds[-1] * fps), fps))
    assert [stop for _, _, stop in frames(checked)] == [round(second * fps) for second in seconds[1:]]


@settings(deadline=None)
@given(segmentations(shortest=2.5), st.integers(0, 2**32), st.floats(0, 0.99), st.permutations(range(6)))
def test_noise_below_the_tolerance_is_repaired(case, seed, share, order) -> None:
    names, fps, edges = case
    stages = SubtaskList(tuple(Subtask(name) for name in names))
    sample = sample_frames(edges[-1], fps)
    noise = share * Rules().tolerance(sample) / 2
    if noise > 1.0:
        return  # longer steps than stages: nothing to be had
    rng = np.random.default_rng(seed)
    entries = [
        {"name": name.upper(), "start": a / fps + rng.uniform(-noise, noise), "end": b / fps + rng.uniform(-noise, noise)}
        for name, a, b in zip(stages.names, edges, edges[1:], strict=False)
    ]
    shuffled = [entries[k] for k in order if k < len(entries)]
    checked = check_reply(json.dumps({"subtasks": shuffled}), stages, sample)
    found = frames(checked)
    assert [name for name, *_ in found] == list(stages.names)
    assert_covers(checked, edges[-1])
    assert max(abs(stop - edge) for (_, _, stop), edge in zip(found, edges[1:], strict=True)) <= noise * fps + 0.5 + 1e-6
    assert checked.moved_s <= Rules().tolerance(sample)


def assert_covers(checked: Checked, length: int) -> None:
    assert checked.segments
    assert (checked.segments[0].start, checked.segments[-1].stop) == (0, length)
    for before, after in zip(checked.segments, checked.segments[1:], strict=False):
        assert before.stop == after.start
    assert all(segment.stop > segment.start for segment in checked.segments)


TIME = st.floats(-1, 12) | st.integers(-1, 12) | st.sampled_from(["00:03", "00:06.5", "frame 9", "x", None, "9 s"]) | st.floats()
ENTRY = st.fixed_dictionaries({"name": st.sampled_from(["reach", "grasp", "rest", "lift", "Lift", "wave"]), "start": TIME, "end": TIME})


@settings(deadline=None)
@given(
    st.lists(ENTRY, max_size=7),
    st.booleans(),
    st.booleans(),
    st.sampled_from([0.0, 0.2]),
    st.integers(1, 400),
    st.sampled_from([False, None]),
)
def test_any_claims_give_faults_or_a_valid_annotation(entries, covers, cut, shortest, length, success) -> None:
    text = json.dumps({"subtasks": entries})
    stages = SubtaskList(LOOSE.subtasks, covers=covers)
    checked = check_reply(
        text[: len(text) // 2] if cut else text, stages, sample_frames(length, 30.0), success=success, rules=Rules(shortest_s=shortest)
    )
    if checked.segments is None:
        assert any(fault.fatal for fault in checked.faults)
        assert reask(checked.faults)
    elif covers:
        assert_covers(checked, length)
    else:
        edges = [edge for segment in checked.segments for edge in (segment.start, segment.stop)]
        assert edges == sorted(edges)
        assert all(segment.stop > segment.start for segment in checked.segments)


@settings(deadline=None)
@given(st.text(max_size=400) | st.text(alphabet='{}[]":,.0123456789 aefhimnrstu', max_size=400), st.sampled_from(["", "stop", "length"]))
def test_garbage_always_gives_a_fault(text: str, finish: str) -> None:
    checked = check_reply(text, STAGES, SAMPLE, cut=finish == "length")
    assert checked.segments is None
    assert checked.faults
    assert all(fault.message for fault in checked.faults)
