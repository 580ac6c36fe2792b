"""RA-BC weights: LeRobot 0.6.1's own numbers, hand-worked cases, and properties."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from milepost.progress.table import read_progress
from milepost.weights.config import RabcConfig
from milepost.weights.deltas import deltas
from milepost.weights.result import suggested_kappa, weigh, weighted_mean
from milepost.weights.rules import rabc, statistics

DATA = Path(__file__).parent / "data" / "rabc"
GOLDEN = json.loads((DATA / "rabc_golden.json").read_text())["cases"]


def parse(case: str) -> tuple[str, RabcConfig]:
    head, chunk, kappa, *fallback = case.split("_")
    return head, RabcConfig(
        chunk_size=int(chunk.removeprefix("chunk")),
        kappa=float(kappa.removeprefix("kappa")),
        fallback_weight=float(fallback[0].removeprefix("fallback")) if fallback else 1.0,
    )


@pytest.mark.parametrize("case", GOLDEN)
def test_equals_lerobot(case: str) -> None:
    head, config = parse(case)
    table = read_progress(DATA / "progress.parquet")
    golden = np.load(DATA / "rabc_golden.npz")
    weighed = weigh(table.index, table.episode_index, table.values(head), config=config)
    full_delta = np.full(len(golden[f"{case}/deltas"]), np.nan)
    full_weight = np.full(len(full_delta), config.fallback_weight)
    full_delta[table.index], full_weight[table.index] = weighed.delta, weighed.weight
    np.testing.assert_allclose(full_delta, golden[f"{case}/deltas"], atol=1e-6)
    np.testing.assert_allclose(full_weight, golden[f"{case}/weights"], atol=1e-6)
    assert weighed.delta_mean == pytest.approx(GOLDEN[case]["stats"]["delta_mean"], abs=1e-6)
    assert weighed.delta_std == pytest.approx(GOLDEN[case]["stats"]["delta_std"], abs=1e-6)


def test_by_hand() -> None:
    """Four frames, horizon 2: deltas .6, .6, .3, 0; mean .375, population std sqrt(.061875)."""
    value = np.array([0.0, 0.3, 0.6, 0.9])
    delta = deltas(np.arange(4), np.zeros(4, int), value, 2)
    np.testing.assert_allclose(delta, [0.6, 0.6, 0.3, 0.0])
    mean, std = statistics(delta)
    assert mean == pytest.approx(0.375)
    assert std == pytest.approx(0.061875**0.5)
    weight = rabc(delta, mean, std, RabcConfig(kappa=0.5))
    np.testing.assert_allclose(weight[:2], 1.0)
    np.testing.assert_allclose(weight[2], (0.3 - (mean - 2 * std)) / (4 * std), atol=1e-5)
    np.testing.assert_allclose(weight[3], max(0.0, (0.0 - (mean - 2 * std)) / (4 * std)), atol=1e-5)


def test_the_horizon_stops_at_the_episode() -> None:
    value = np.array([0.0, 1.0, 0.0, 1.0])
    delta = deltas(np.arange(4), np.array([0, 0, 1, 1]), value, 3)
    np.testing.assert_allclose(delta, [1, 0, 1, 0])


def test_backwards_is_zero_and_unknown_is_the_fallback() -> None:
    weight = rabc(np.array([-0.1, np.nan, 0.5]), 0.0, 0.1, RabcConfig(fallback_weight=0.25))
    np.testing.assert_allclose(weight, [0.0, 0.25, 1.0])


def test_row_order_does_not_matter(rng: np.random.Generator) -> None:
    index, episode, value = np.arange(100), np.repeat(np.arange(5), 20), rng.random(100)
    config = RabcConfig(chunk_size=7, kappa=0.1)
    order = rng.permutation(100)
    straight = weigh(index, episode, value, config=config)
    mixed = weigh(index[order], episode[order], value[order], config=config)
    np.testing.assert_allclose(straight.weight[order], mixed.weight)


def test_a_repeated_index_is_refused() -> None:
    with pytest.raises(ValueError, match="twice"):
        deltas(np.array([0, 0]), np.zeros(2, int), np.zeros(2), 1)


def test_gaps_in_the_file_equal_the_slow_rule(rng: np.random.Generator) -> None:
    index = np.sort(rng.choice(200, size=150, replace=False))
    episode = index // 50
    value = rng.random(150)
    table = dict(zip(index, value, strict=True))
    expected = []
    for i, e in zip(index, episode, strict=True):
        ahead = min(i + 9, index[episode == e].max())
        expected.append(table[ahead] - table[i] if ahead in table else np.nan)
    np.testing.assert_allclose(deltas(index, episode, value, 9), expected)


@given(st.lists(st.floats(-1, 1) | st.just(float("nan")), min_size=1, max_size=50), st.floats(0, 0.5))
def test_weights_lie_between_zero_and_one(delta: list[float], kappa: float) -> None:
    array = np.array(delta)
    weight = rabc(array, *statistics(array), RabcConfig(kappa=kappa))
    assert np.all((weight >= 0) & (weight <= 1))
    assert np.all(weight[np.isnan(array)] == 1)
    assert np.all(weight[array < 0] == 0)


def test_shares_and_effective_size() -> None:
    weighed = weigh(np.arange(4), np.zeros(4, int), np.array([0.0, 0.5, 0.25, 0.25]), config=RabcConfig(chunk_size=1, kappa=0.1))
    assert weighed.full == pytest.approx(0.25)
    assert weighed.soft == pytest.approx(0.5)
    assert weighed.unknown == 0
    assert 0 < weighed.effective <= 1
    assert suggested_kappa(weighed) == pytest.approx(0.0625)


def test_weighted_mean_takes_numpy_and_torch() -> None:
    import torch

    loss, weight = np.array([1.0, 2.0, 5.0]), np.array([1.0, 0.5, 0.0])
    expected = 2.0 / (1.5 + 1e-6)
    assert weighted_mean(loss, weight) == pytest.approx(expected)
    assert weighted_mean(torch.tensor(loss), torch.tensor(weight)).item() == pytest.approx(expected)


def test_all_zero_weights_give_zero_not_nan() -> None:
    assert weighted_mean(np.ones(3), np.zeros(3)) == 0


@pytest.mark.parametrize("bad", [{"chunk_size": 0}, {"epsilon": 0.0}, {"fallback_weight": -1.0}])
def test_bad_settings_are_refused(bad: dict) -> None:
    with pytest.raises(ValueError, match="must be"):
        RabcConfig(**bad)
