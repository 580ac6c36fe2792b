"""Advantage labels in the form of LeRobot's pull request 3764, which is open and may change: hence a file of its own, and a version.

Columns `is_terminal` and `mc_return`, which its value function learns from, and rows of style `advantage` in `language_persistent`, which
its recipe reads as `active_at(t, style=advantage)`. A row holds until the next one, so one is written where the label changes, not one a
frame: every frame reads the same. Source: the pull request, September 2026.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float, Shaped

from milepost.datasets import LanguageRow, LanguageRows, LeRobotDataset
from milepost.progress import row_count
from milepost.weights.advantage import EpisodeLabels, EpisodeProgress

LEROBOT_FORM = "lerobot-pr3764-2026-09"
"""The version of the form, written beside the labels."""
FAILURE_FRAMES = 50
"""C: a failed episode counts as this many frames more."""
STYLE, ROLE = "advantage", "user"


def lerobot_returns(length: int, has_failed: bool, longest: int) -> tuple[Bool[np.ndarray, "T"], Float[np.ndarray, "T"]]:
    """Returns `is_terminal` and `mc_return` of an episode. longest: H, the frames of the dataset's longest episode.

    The reward is -1 / (H - 1 + C) in every frame but the last, and there 0, or -C / (H - 1 + C) for a failure: returns are in [-1, 0].

    >>> lerobot_returns(3, True, 51)[1].tolist()
    [-0.52, -0.51, -0.5]
    """
    left = np.arange(length)[::-1]
    return left == 0, -(left + (FAILURE_FRAMES if has_failed else 0)) / (longest - 1 + FAILURE_FRAMES)


def lerobot_columns(dataset: LeRobotDataset, episodes: Sequence[EpisodeProgress]) -> dict[str, Shaped[np.ndarray, "R"]]:
    """Returns the columns `is_terminal` and `mc_return` by row of the dataset."""
    longest = max(len(each.progress) for each in episodes)
    is_terminal, mc_return = np.zeros(row_count(dataset), bool), np.full(row_count(dataset), np.nan)
    for each in episodes:
        rows = slice(*dataset.row_range(each.episode))
        is_terminal[rows], mc_return[rows] = lerobot_returns(len(each.progress), each.has_failed, longest)
    return {"is_terminal": is_terminal, "mc_return": mc_return}


def lerobot_rows(dataset: LeRobotDataset, labels: Sequence[EpisodeLabels]) -> LanguageRows:
    """Returns the rows of style `advantage`: positive or negative, at the time stamp of each frame where the label changes."""
    rows = {}
    for each in labels:
        episode = dataset.episode(each.episode)
        stamps = episode.columns.get("timestamp", np.arange(episode.length) / episode.fps).reshape(-1)
        changes = np.flatnonzero(np.diff(each.is_positive, prepend=~each.is_positive[:1]))
        rows[each.episode] = [LanguageRow("positive" if each.is_positive[at] else "negative", float(stamps[at])) for at in changes]
    return LanguageRows(STYLE, ROLE, rows)


def plain_columns(dataset: LeRobotDataset, labels: Sequence[EpisodeLabels]) -> dict[str, Shaped[np.ndarray, "R"]]:
    """Returns the columns `advantage` (bool) and `advantage_continuous` (in tasks) by row of the dataset, for a trainer of one's own.

    RLinf reads the first one too, where there is no file of labels.
    """
    is_positive, advantage = np.zeros(row_count(dataset), bool), np.full(row_count(dataset), np.nan)
    for each in labels:
        rows = slice(*dataset.row_range(each.episode))
        is_positive[rows], advantage[rows] = each.is_positive, each.advantage
    return {"advantage": is_positive, "advantage_continuous": advantage}
