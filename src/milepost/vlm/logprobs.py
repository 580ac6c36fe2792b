"""Next-token log-probabilities out of a chat/completions reply. A token that is not listed gets a bound, never an invented number.

A server lists the N most probable tokens. A token outside the list has log p <= the smallest one listed, and p <= 1 - the sum of all
listed. "True" and " True" are two tokens with two probabilities: the result says which one was read, and they are added up only on request.
An entry whose number is null, or a mark such as -9999, stands for a probability of zero and counts as not listed.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

SPACES = (" ", "\u2581", "\u0120")
"""A space, and how SentencePiece and byte-level BPE write it: some servers send raw vocabulary entries instead of text."""

ROUNDING = 1e-6
"""Servers compute in float32: listed probabilities may sum to 1 and still leave this much unseen."""

FLOOR = -500.0
"""No softmax gives less: what stands below is a server's mark for minus infinity, which JSON has not (-9999, the lowest float32)."""

_NUMBERED = re.compile(r"token_id:\d+")

Spelling = Literal["exact", "likelier", "sum"]
"""Which token is the answer: the answer as it is written; the likelier of it and its leading-space twin; the sum of both.

An answer written with a leading space has no twin: its spellings are the ways to write that space."""


@dataclass(frozen=True)
class TokenScore:
    """One answer as the next token.

    logprob: its log-probability, <= 0, or NaN if the server did not list it. bound: log p is at most this (`logprob` itself where known;
    with "sum" and one spelling listed, the other's bound is not in it). token: the token it was read from, exactly as the server wrote
    it; None if not listed. spellings: every spelling of the answer in the list (as it is, with a leading space) and its log-probability,
    used or not.
    """

    logprob: float
    bound: float
    token: str | None
    spellings: Mapping[str, float] = field(default_factory=dict)

    @property
    def is_bound(self) -> bool:
        """Returns whether only the upper bound is known."""
        return self.token is None


def score_answers(tokens: Sequence[tuple[str, float]], answers: Sequence[str], spelling: Spelling = "exact") -> dict[str, TokenScore]:
    """Returns one score for each answer, from (token, log-probability) as listed, most probable first. ValueError for an unknown
    spelling.
    """
    if spelling not in get_args(Spelling):
        raise ValueError(f"spelling is one of {', '.join(get_args(Spelling))}; got '{spelling}'")
    logprobs: dict[str, float] = {}
    for token, logprob in tokens:
        logprobs.setdefault(token, logprob)  # two tokens may print alike: the likelier one is meant
    bound = absent_bound([logprob for _, logprob in tokens])
    return {answer: _score(answer, logprobs, bound, spelling) for answer in answers}


def _score(answer: str, logprobs: Mapping[str, float], bound: float, spelling: Spelling) -> TokenScore:
    spaced = answer.startswith(SPACES)
    twins = [space + answer[spaced:] for space in SPACES]
    spellings = {token: logprobs[token] for token in (twins if spaced else (answer, *twins)) if token in logprobs}
    usable = {token: p for token, p in spellings.items() if spaced or token == answer} if spelling == "exact" else spellings
    if not usable:
        return TokenScore(math.nan, bound, None, spellings)
    token = max(usable, key=usable.__getitem__)
    if spelling == "sum" and len(usable) > 1:
        value = min(usable[token] + math.log(sum(math.exp(p - usable[token]) for p in usable.values())), 0.0)
        return TokenScore(value, value, "+".join(usable), spellings)
    return TokenScore(usable[token], usable[token], token, spellings)


def absent_bound(logprobs: Sequence[float]) -> float:
    """Returns the highest log-probability that a token outside this list can have.

    >>> absent_bound([math.log(0.5), math.log(0.4)]) == math.log(1 - 0.5 - 0.4 + ROUNDING)
    True
    """
    unseen = max(1.0 - math.fsum(math.exp(p) for p in logprobs), 0.0) + ROUNDING
    return min(math.log(unseen), *logprobs, 0.0)


class NumberedTokensError(ValueError):
    """The server lists numbers in place of tokens, and no bytes: which one is the answer cannot be known."""


def listed_tokens(choice: Mapping[str, Any], position: int = 0) -> list[tuple[str, float]] | None:
    """Returns one token's list in a `choice` of a reply, the first token's; None if the server sent no log-probabilities.

    The token chosen is part of the list even where the server does not repeat it there, unless it is less probable than the list's last:
    then it was not chosen greedily, and would lower the bound of all others. ValueError (NumberedTokensError), KeyError, TypeError or
    OverflowError for anything that is not a list of tokens with log-probabilities <= 0.
    """
    content = (choice.get("logprobs") or {}).get("content")
    if not content:
        return None
    place = content[position]
    entries = [entry for each in place.get("top_logprobs") or [] if (entry := _entry(each)) is not None]
    generated = _entry(place)
    lowest = min((p for _, p in entries), default=-math.inf)
    if generated is not None and generated[0] not in [token for token, _ in entries] and generated[1] >= lowest:
        entries.append(generated)
    return sorted(entries, key=lambda entry: -entry[1])


def listed_after(choice: Mapping[str, Any], words: re.Pattern[str]) -> list[tuple[str, float]] | None:
    """Returns the list of the first token, but for spaces, behind a beginning of the answer that `words` matches to its end.

    [] if there is no such token; None and errors as `listed_tokens`.
    """
    content = (choice.get("logprobs") or {}).get("content")
    if not content:
        return None
    tokens = [_text(entry["token"], entry.get("bytes")) for entry in content]
    places = (number for number, token in enumerate(tokens) if token.strip() and words.search("".join(tokens[:number])))
    place = next(places, None)
    return [] if place is None else listed_tokens(choice, place)


def _entry(entry: Mapping[str, Any]) -> tuple[str, float] | None:
    """Returns (token, log-probability), or None where that is minus infinity."""
    token, number = entry["token"], entry["logprob"]
    if not isinstance(token, str) or isinstance(number, bool):
        raise TypeError("a token with a log-probability <= 0 was expected")
    token = _text(token, entry.get("bytes"))
    if number is None:
        return None
    logprob = float(number)
    if not logprob <= ROUNDING:  # refuses NaN as well
        raise ValueError(f"a token with a log-probability <= 0 was expected, got one with {logprob}")
    return None if logprob <= FLOOR else (token, min(logprob, 0.0))


def _text(token: str, raw: Any) -> str:
    """Returns the token in letters, also where the server gives its number and, beside it, its bytes."""
    if not _NUMBERED.fullmatch(token):
        return token
    text = bytes(raw).decode("utf-8", "replace") if isinstance(raw, list) else token
    if text == token:
        raise NumberedTokensError(f"tokens are listed by number ('{token}'), without their letters")
    return text
