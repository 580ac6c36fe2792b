"""Instructions that a model learns to tell apart: wrong ones for training, and blank ones, which are refused."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Float

from milepost.core import has_words

TextEncoder = Callable[[Sequence[str]], Float[np.ndarray, "N M"]]

VERBS = ("open", "close", "pick up", "put down", "turn", "press", "hang", "fold", "wipe", "stack", "pour", "sort", "cut", "plug in")
NOUNS = (
    "the red cup", "a towel", "the left button", "the basket", "a spoon", "the blue block", "the lid", "the cable", "a bottle",
    "the cloth", "the small box", "the plate", "the knob", "the marker", "a sponge", "the tray",
)  # fmt: skip


def wrong_instruction(task: str, tasks: Sequence[str], rng: np.random.Generator) -> str:
    """Returns another task of the dataset, or a made-up one (half and half when there are others)."""
    others = [other for other in tasks if other != task]
    if others and rng.random() < 0.5:
        return others[rng.integers(len(others))]
    return f"{VERBS[rng.integers(len(VERBS))]} {NOUNS[rng.integers(len(NOUNS))]}"


def blank_fault(task: str, knows_blank: bool, *, wrong_means: str, remedy: str) -> str:
    """Returns what is wrong with an instruction: a blank one, unless the model learnt from blank ones.

    wrong_means: what the model learnt that another instruction than the right one means, such as "no progress". remedy: what to do.
    """
    words = f"the task is blank, and this model learnt that another instruction than the right one {wrong_means}; {remedy}"
    return "" if has_words(task) or knows_blank else words
