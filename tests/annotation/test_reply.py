"""Answers as models write them -> claims in seconds, by hand; and what is no answer."""

import json
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from milepost.annotation.reply import TimedLabel, json_schema, parse_reply, seconds
from milepost.annotation.subtasks import SubtaskList

TIMES = np.array([0.0, 0.5, 1.0, 1.5])
TWO = (TimedLabel("reach", 0.0, 3.5), TimedLabel("fold", 3.5, 10.0))
FLAT = '{"subtasks": [{"name": "reach", "start": 0.0, "end": 3.5}, {"name": "fold", "start": 3.5, "end": 10.0}]}'
NESTED = (
    '{"subtasks": [{"name": "reach", "timestamps": {"start": "00:00", "end": "00:03.5"}}, '
    '{"name": "fold", "timestamps": {"start": "00:03.5", "end": "00:10"}}]}'
)


@pytest.mark.parametrize(
    "text",
    [
        FLAT,
        NESTED,
        f"Here is the answer:\n```json\n{FLAT}\n```\nI hope this helps!",
        f"```\n{NESTED}\n```",
        f"The robot [arm] reaches (0 to 3.5 s) and then folds.\n\n{FLAT}",
        f'Unclosed [ bracket and a stray quote " first. {FLAT}',
        f"<think>maybe {FLAT.replace('3.5', '4.5')} or not</think>{FLAT}",
        f"Draft: {FLAT.replace('3.5', '9.5')}\nBetter: {FLAT}",
        FLAT.replace("}]", "},]"),
        NESTED.replace('"00:03.5"', "00:03.5"),
        json.dumps(json.loads(FLAT), indent=2),
        json.dumps(json.loads(FLAT)["subtasks"]),
        "\n".join(json.dumps(each) for each in json.loads(FLAT)["subtasks"]),
        json.dumps({"answer": json.loads(FLAT)}),
        json.dumps({"name": "episode 4", "subtasks": json.loads(FLAT)["subtasks"]}),
        json.dumps(
            {"segments": [{"label": "reach", "start_time": "0s", "end_time": "3.5 s"}, {"label": "fold", "start": 3.5, "stop": 10}]}
        ),
        FLAT[:-1],  # only the last brace is missing: the list is whole
    ],
)
def test_one_answer_in_many_forms(text: str) -> None:
    parsed = parse_reply(text)
    assert parsed.faults == ()
    assert parsed.labels == TWO


@pytest.mark.parametrize(
    "text", ["", "I cannot see the video.", "reach 0-3.5, fold 3.5-10", "{}", "[]", '{"a": [1, 2]}', "null", "[" * 5000 + "]" * 5000]
)
def test_no_json(text: str) -> None:
    (fault,) = parse_reply(text).faults
    assert (fault.kind, fault.fatal) == ("no JSON", True)


@pytest.mark.parametrize("stop", range(FLAT.index("{") + 1, len(FLAT) - 1))
def test_cut_anywhere(stop: int) -> None:
    (fault,) = parse_reply("Sure: " + FLAT[:stop]).faults
    assert fault.kind == "cut off"


def test_cut_after_a_draft_is_cut() -> None:
    assert parse_reply(f"Draft: {FLAT}\nBetter: {FLAT[:60]}").faults[0].kind == "cut off"
    assert parse_reply("<think>it goes on and on", cut=True).faults[0].kind == "cut off"


@pytest.mark.parametrize(
    "text",
    [
        f"Let me see. A first guess:\n{FLAT}\nHmm, but frame 7",  # the opening mark was in the prompt
        f"Let me see. A first guess:\n{FLAT}",
        f"{FLAT} and then I will expl",
        f"<think>{FLAT}</think>Now the answer: {FLAT[:40]}",
        f"[THINK]{FLAT}",
        "",
    ],
)
def test_of_a_text_that_was_cut_off_a_draft_is_no_answer(text: str) -> None:
    (fault,) = parse_reply(text, cut=True).faults
    assert fault.kind == "cut off"
    assert "--max-tokens" in fault.advice
    assert "--max-tokens" not in fault.message  # the model has no such option


@pytest.mark.parametrize(
    "text", [FLAT, f"```json\n{FLAT}\n```", f"I think so.</think>\n\n{FLAT}", f"<thinking>{FLAT[:30]}</thinking>{FLAT}"]
)
def test_an_answer_that_is_all_of_a_text_that_was_cut_off_counts(text: str) -> None:
    assert parse_reply(text, cut=True).labels == TWO


@pytest.mark.parametrize("mark", ["</think>", "</reasoning>", "[/THINK]", "◁/think▷"])
def test_what_follows_the_thoughts_counts_and_no_draft_in_them(mark: str) -> None:
    draft = FLAT.replace("3.5", "4.5")
    assert parse_reply(f"Maybe {draft}.{mark}{FLAT}").labels == TWO
    assert parse_reply(f"Maybe {draft}.{mark}I cannot tell.").faults[0].kind == "no JSON"


@pytest.mark.parametrize(
    "text", ['\\"' * 100_000, "}" + " " * 200_000 + "x", "[1," * 20_000, '{"a":' * 900 + "1," * 40_000, "</think" * 30_000]
)
def test_text_made_to_take_for_ever_does_not(text: str) -> None:
    begun = time.perf_counter()
    assert parse_reply(text).faults
    assert time.perf_counter() - begun < 10


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (12.5, 12.5),
        (0, 0.0),
        ("12.5", 12.5),
        ("12.5s", 12.5),
        ("12,5 s", 12.5),
        ("12.5 seconds", 12.5),
        ("-0.2", -0.2),
        ("<1.5 seconds>", 1.5),
        ("00:03", 3.0),
        ("00:03.5", 3.5),
        ("01:05,25", 65.25),
        ("1:5", 65.0),
        ("90:00", 5400.0),
        ("01:02:03", 3723.0),
        ("1:02:03.5", 3723.5),
        ("2 min 5 s", 125.0),
        ("1m05.5s", 65.5),
        ("3 minutes", 180.0),
        ("frame 4", 1.5),
        ("Frame 3 (9.5 s)", 9.5),
        ("frame 2, 0.52 s:", 0.52),
        ("#1", 0.0),
        ("frame 5", None),
        ("frame 0", None),
        ("00:75", None),
        ("1:75:00", None),
        ("soon", None),
        ("", None),
        ("3 to 4", None),
        ("1e400", None),
        (float("nan"), None),
        (float("inf"), None),
        (10**400, None),
        (True, None),
        (None, None),
    ],
)
def test_times_by_hand(value, expected) -> None:
    assert seconds(value, TIMES) == expected


def test_frames_need_the_times_shown() -> None:
    assert seconds("frame 1") is None
    text = '[{"name": "reach", "start_frame": 1, "end_frame": 3}, {"name": "fold", "start": "frame 3", "end": "Frame 4"}]'
    assert parse_reply(text, times_s=TIMES).labels == (TimedLabel("reach", 0.0, 1.0), TimedLabel("fold", 1.0, 1.5))
    (fault, *_) = parse_reply(text).faults
    assert fault.kind == "unreadable time"
    assert "1 to 4" in parse_reply(text.replace("Frame 4", "Frame 5"), times_s=TIMES).faults[0].message


def test_wrong_shapes_are_named() -> None:
    parsed = parse_reply(
        '[{"name": "reach", "start": 0}, {"name": "fold", "start": true, "end": 3}, {"name": "x"}, {"start": 1, "name": 5, "end": 2}, 3]'
    )
    assert [fault.kind for fault in parsed.faults] == [
        "unreadable time",
        "wrong shape",
        "unreadable time",
        "unreadable time",
        "wrong shape",
        "wrong shape",
    ]
    assert "entry 2" in parsed.faults[1].message


def test_null_times_say_that_it_did_not_happen() -> None:
    parsed = parse_reply('[{"name": "reach", "start": 0, "end": 1}, {"name": "rest", "start": null, "end": null}]')
    assert parsed.labels == (TimedLabel("reach", 0.0, 1.0),)
    assert not parsed.faults


def test_whole_seconds_are_noticed() -> None:
    form = '[{{"name": "a", "start": {}, "end": {}}}]'
    for start, stop, whole in (
        (0, 3, True),
        ('"00:00"', '"00:03"', True),
        ("0.0", "3.0", False),
        (0, 3.5, False),
        ('"frame 1"', '"frame 3"', False),
    ):
        assert parse_reply(form.format(start, stop), times_s=TIMES).whole_seconds is whole


def test_the_schema_has_the_closed_list() -> None:
    schema = json_schema(SubtaskList.from_flag("reach, fold"))
    item = schema["properties"]["subtasks"]["items"]
    assert item["properties"]["name"]["enum"] == ["reach", "fold"]
    for part in (schema, item):
        assert part["additionalProperties"] is False
        assert part["required"] == list(part["properties"])
    json.dumps(schema)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.sampled_from(["reach", "00:03", "frame 2"]),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(["name", "start", "end", "subtasks", "timestamps", "start_frame", "stage"]) | st.text(max_size=4),
            inner,
            max_size=4,
        )
    ),
    max_leaves=20,
)


@settings(deadline=None)
@given(st.text() | st.text(alphabet='{}[]":,.0123456789 abnfrme\\') | JSON.map(json.dumps) | st.binary().map(lambda b: b.decode("latin-1")))
def test_no_text_crashes_it(text: str) -> None:
    parsed = parse_reply(text, times_s=TIMES)
    assert parsed.labels or parsed.faults or "null" in text or "subtasks" in text
    for claim in parsed.labels:
        assert np.isfinite([claim.start_s, claim.stop_s]).all()


@pytest.mark.parametrize(
    "text", ["[" * 50_000, "{" * 20_000 + '"', '{"a":' * 20_000, "[1," * 20_000, '"' * 50_000, "[{" * 10_000 + "}]" * 10_000]
)
def test_no_text_takes_long(text: str) -> None:
    assert parse_reply(text).faults
