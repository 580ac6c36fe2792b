"""What a list of likely tokens says of an answer, and what it does not."""

from __future__ import annotations

import inspect
import math
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from milepost.vlm.logprobs import ROUNDING, NumberedTokensError, absent_bound, listed_after, listed_tokens, score_answers

LISTED = [(" True", math.log(0.5)), ("True", math.log(0.25)), ("No", math.log(0.125))]


def test_a_listed_answer_is_read_and_an_absent_one_is_bounded():
    scores = score_answers(LISTED, ["True", "False"])
    true, false = scores["True"], scores["False"]
    assert (true.logprob, true.bound, true.token, true.is_bound) == (math.log(0.25), math.log(0.25), "True", False)
    assert math.isnan(false.logprob)
    assert false.token is None
    assert false.is_bound
    assert false.bound == math.log(0.125)  # both bounds meet here: the last one listed, and 1 - 7/8


@pytest.mark.parametrize(
    ("spelling", "value", "token"),
    [("exact", 0.25, "True"), ("likelier", 0.5, " True"), ("sum", 0.75, "True+ True")],
)
def test_the_spelling_with_a_space_is_another_token(spelling, value, token):
    score = score_answers(LISTED, ["True"], spelling)["True"]
    assert score.logprob == pytest.approx(math.log(value), abs=1e-15)
    assert score.token == token
    assert score.spellings == {"True": math.log(0.25), " True": math.log(0.5)}


def test_only_the_other_spelling_listed_is_not_taken_for_the_answer():
    listed = [(" True", -0.1), ("x", -3.0)]
    score = score_answers(listed, ["True"])["True"]
    assert score.is_bound
    assert score.spellings == {" True": -0.1}
    assert score_answers(listed, ["True"], "likelier")["True"].token == " True"
    assert score_answers(listed, [" True"])[" True"].logprob == -0.1


@pytest.mark.parametrize("written", ["\u2581True", "\u0120True"])
def test_raw_vocabulary_entries_are_spaces(written):
    assert score_answers([(written, -0.1)], ["True"], "likelier")["True"].token == written
    assert score_answers([("True", -3.0), (written, -0.1)], [" True"])[" True"].logprob == -0.1
    assert score_answers([("True", -0.1)], [" True"], "likelier")[" True"].is_bound  # what has a space has no twin without


@given(st.lists(st.floats(-6, 6), min_size=3, max_size=40), st.integers(1, 39))
def test_the_bound_is_never_below_the_truth(logits, kept):
    logits = np.sort(np.asarray(logits))[::-1]
    logprobs = (logits - np.log(np.exp(logits).sum())).astype(np.float32)  # as servers send them
    kept = min(kept, len(logprobs) - 1)
    assert absent_bound(logprobs[:kept].tolist()) >= float(logprobs[kept])


def test_a_list_that_sums_to_one_and_more_leaves_room_for_rounding():
    assert absent_bound([math.log(0.6), math.log(0.4) + 1e-7]) == math.log(ROUNDING)


def test_minus_infinity_is_a_log_probability():
    scores = score_answers([("a", 0.0), ("b", -math.inf)], ["b", "c"])
    assert scores["b"].logprob == scores["c"].bound == -math.inf


def choice(chosen, listed):
    entries = [{"token": token, "logprob": logprob} for token, logprob in listed]
    return {"logprobs": {"content": [{"token": chosen[0], "logprob": chosen[1], "top_logprobs": entries}]}}


def test_the_chosen_token_is_part_of_the_list():
    assert listed_tokens(choice(("a", -0.1), [])) == [("a", -0.1)]
    assert listed_tokens(choice(("a", -0.1), [("a", -0.1), ("b", -3.0)])) == [("a", -0.1), ("b", -3.0)]
    assert listed_tokens(choice(("a", -0.1), [("b", -3.0)])) == [("a", -0.1), ("b", -3.0)]
    assert listed_tokens(choice(("z", -9.0), [("a", -0.1), ("b", -3.0)])) == [("a", -0.1), ("b", -3.0)]  # not greedy: no bound from it


@pytest.mark.parametrize("reply", [{}, {"logprobs": None}, {"logprobs": {"content": []}}, {"logprobs": {"content": None}}])
def test_no_list_is_none(reply):
    assert listed_tokens(reply) is None


def test_the_list_behind_words():
    tokens = [("ANSWER", -0.1), (":", -0.2), (" ", -0.3), ("4", -0.4)]
    content = [entry for token in tokens for entry in choice(token, [])["logprobs"]["content"]]
    assert listed_after({"logprobs": {"content": content}}, re.compile(r"ANSWER:\s*$")) == [("4", -0.4)]
    assert listed_after({"logprobs": {"content": content}}, re.compile("GRADE:$")) == []
    assert listed_after({"logprobs": {"content": content[:2]}}, re.compile(r"ANSWER:\s*$")) == []
    assert listed_after({}, re.compile("x")) is None


@pytest.mark.parametrize("logprob", [math.nan, 0.5, "x", True, [], 10**400, -(10**400)])
def test_what_is_not_a_log_probability_is_refused(logprob):
    with pytest.raises((ValueError, TypeError, OverflowError)):
        listed_tokens(choice(("a", logprob), []))


@pytest.mark.parametrize("mark", [None, -9999.0, -3.4028235e38, -math.inf])
def test_a_mark_for_minus_infinity_is_not_listed_and_gives_no_log_odds(mark):
    reply = choice(("a", 0.0), [("a", 0.0), ("b", mark)])
    assert listed_tokens(reply) == [("a", 0.0)]
    scores = score_answers(listed_tokens(reply), ["a", "b"])
    assert scores["a"].logprob == 0.0
    assert math.isnan(scores["a"].logprob - scores["b"].logprob)
    assert scores["b"].bound == pytest.approx(math.log(ROUNDING))
    assert listed_tokens(choice(("a", mark), [("b", mark)])) == []


def numbered(*entries):
    listed = [{"token": token, "logprob": logprob, "bytes": raw} for token, logprob, raw in entries]
    return {"logprobs": {"content": [{**listed[0], "top_logprobs": listed}]}}


def test_a_token_given_by_its_number_is_read_by_its_bytes():
    reply = numbered(("token_id:3007", -0.5, list(b" True")), ("token_id:9", -1.0, [0xE2, 0x96]))  # the second is half of a letter
    assert listed_tokens(reply) == [(" True", -0.5), ("\ufffd", -1.0)]


@pytest.mark.parametrize("raw", [None, list(b"token_id:3007")])
def test_a_number_alone_is_no_token(raw):
    with pytest.raises(NumberedTokensError, match="token_id:3007"):
        listed_tokens(numbered(("token_id:3007", -0.5, raw)))


def test_an_unknown_spelling_is_refused():
    with pytest.raises(ValueError, match="likelier"):
        inspect.unwrap(score_answers)(LISTED, ["True"], "both")  # the types would refuse it first
