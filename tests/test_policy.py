"""The chunking policy: it learns, weights mean what they say, floats repeat, files come back, bad input is refused."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from milepost.core.errors import DataError
from milepost.sim.compare.config import PolicyConfig
from milepost.sim.compare.policy import ChunkPolicy, Demonstrations, fit_policy

SMALL = PolicyConfig(chunk_size=4, hidden_dim=32, num_layers=2, steps=400, batch_size=32, lr=3e-3)


def toy(rng: np.random.Generator, episodes: int = 24, length: int = 30) -> Demonstrations:
    """A point walks to a goal: observation (place, goal), action (goal - place) / 4; the place then moves by it."""
    seen, done = [], []
    for _ in range(episodes):
        place, goal = rng.uniform(-1, 1, 2), rng.uniform(-1, 1, 2)
        for _ in range(length):
            action = (goal - place) / 4 + rng.normal(0, 0.05, 2)
            seen.append(np.concatenate([place, goal]))
            done.append(action)
            place = place + action
    return Demonstrations(np.array(seen, np.float32), np.array(done, np.float32), np.repeat(np.arange(episodes), length))


def wrong(good: Demonstrations) -> Demonstrations:
    """The same, walking away."""
    return dataclasses.replace(good, action=-good.action)


def together(*parts: Demonstrations) -> Demonstrations:
    number = np.concatenate([part.episode_index + 100 * place for place, part in enumerate(parts)])
    return Demonstrations(np.concatenate([p.observation for p in parts]), np.concatenate([p.action for p in parts]), number)


def miss(policy: ChunkPolicy, rng: np.random.Generator) -> float:
    """How far from the goal it ends, walking two actions of each chunk."""
    left = []
    act = policy.actor(np.random.default_rng(0))
    for _ in range(20):
        place, goal = rng.uniform(-1, 1, 2), rng.uniform(-1, 1, 2)
        for _ in range(12):
            for action in act(np.concatenate([place, goal]))[:2]:
                place = place + action
        left.append(np.linalg.norm(goal - place))
    return float(np.mean(left))


@pytest.mark.parametrize("loss", ["l1", "flow"])
def test_it_learns_to_walk_to_a_goal(loss: str) -> None:
    """It starts 1.04 away on average. A flow has more to learn: a distribution."""
    config = SMALL if loss == "l1" else dataclasses.replace(SMALL, loss=loss, steps=1000, hidden_dim=64)
    assert miss(fit_policy(toy(np.random.default_rng(0)), config, rng=np.random.default_rng(1)), np.random.default_rng(2)) < 0.15


@pytest.mark.parametrize("draw", ["uniform", "weight"])
def test_weights_take_the_bad_half_out(draw: str) -> None:
    good = toy(np.random.default_rng(0))
    both = together(good, wrong(good), wrong(good))
    weight = np.repeat([1.0, 0.0, 0.0], len(good.action))
    config = dataclasses.replace(SMALL, draw=draw)
    assert miss(fit_policy(both, config, rng=np.random.default_rng(1), weight=weight), np.random.default_rng(2)) < 0.15
    assert miss(fit_policy(both, config, rng=np.random.default_rng(1)), np.random.default_rng(2)) > 0.5


def test_a_sample_that_weighs_nothing_decides_nothing() -> None:
    """Whatever stands in those rows, the trained floats are the same, normalisation included; NaN-free garbage too."""
    good = toy(np.random.default_rng(0))
    bad, worse = wrong(good), Demonstrations(good.observation * 1e3, good.action * 1e3, good.episode_index)
    weight = np.repeat([1.0, 0.0], len(good.action))
    config = dataclasses.replace(SMALL, steps=20)
    one, other = (fit_policy(together(good, rest), config, rng=np.random.default_rng(1), weight=weight) for rest in (bad, worse))
    assert same(one, other)


def test_the_weighted_gradient_is_that_of_the_samples_left_over() -> None:
    """Weights of 0 and 1 give the gradient of the mean over the ones; a weight of 2 is the sample twice."""
    data = toy(np.random.default_rng(0), episodes=1, length=6)
    chunk, valid = (torch.from_numpy(array) for array in data.chunks(4))
    seen = torch.from_numpy(data.observation)
    policy = ChunkPolicy(SMALL, 4, 2)

    def gradient(rows: list[int], weight: list[float]) -> torch.Tensor:
        loss = policy.loss(seen[rows], chunk[rows], valid[rows], torch.Generator())
        weight_B = torch.tensor(weight)
        policy.zero_grad()
        ((loss * weight_B).sum() / weight_B.sum()).backward()
        return torch.cat([parameter.grad.flatten() for parameter in policy.parameters()])

    torch.testing.assert_close(gradient([0, 1, 2, 3], [1, 0, 1, 0]), gradient([0, 2], [1, 1]))
    torch.testing.assert_close(gradient([0, 1], [2, 1]), gradient([0, 0, 1], [1, 1, 1]))


def test_padding_is_no_lesson() -> None:
    """The last frame's loss is over its one action; worked by hand on a network that says 0."""
    data = Demonstrations(np.zeros((3, 1), np.float32), np.array([[1.0], [2.0], [6.0]], np.float32), np.array([0, 0, 0]))
    chunk, valid = data.chunks(2)
    np.testing.assert_array_equal(chunk[:, :, 0], [[1, 2], [2, 6], [6, 6]])
    np.testing.assert_array_equal(valid, [[True, True], [True, True], [True, False]])
    policy = ChunkPolicy(dataclasses.replace(SMALL, chunk_size=2), 1, 1)
    for parameter in policy.parameters():
        torch.nn.init.zeros_(parameter)
    loss = policy.loss(torch.zeros(3, 1), torch.from_numpy(chunk), torch.from_numpy(valid), torch.Generator())
    assert loss.tolist() == [1.5, 4.0, 6.0]


def same(one: ChunkPolicy, other: ChunkPolicy) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one.state_dict().values(), other.state_dict().values(), strict=True))


@pytest.mark.parametrize("loss", ["l1", "flow"])
def test_same_seed_same_floats_and_saved_is_loaded(loss: str, tmp_path: Path) -> None:
    config, data = dataclasses.replace(SMALL, loss=loss, steps=15), toy(np.random.default_rng(0))
    one, again, other = (fit_policy(data, config, rng=np.random.default_rng(seed)) for seed in (3, 3, 4))
    assert same(one, again)
    assert not same(one, other)
    one.save_pretrained(tmp_path / "policy")
    loaded = ChunkPolicy.from_pretrained(tmp_path / "policy")
    assert loaded.config == config
    here, there = (policy.actor(np.random.default_rng(5))(data.observation[0]) for policy in (one, loaded))
    np.testing.assert_array_equal(here, there)


def test_what_is_refused(tmp_path: Path) -> None:
    data = toy(np.random.default_rng(0), episodes=2, length=5)
    for weight in (np.zeros(10), np.ones(9), np.full(10, -1.0), np.full(10, np.nan)):
        with pytest.raises(DataError, match="weights must be"):
            fit_policy(data, SMALL, rng=np.random.default_rng(0), weight=weight)
    with pytest.raises(DataError, match="finite"):
        dataclasses.replace(data, action=data.action * np.float32(np.nan))
    with pytest.raises(DataError, match="stand together"):
        dataclasses.replace(data, episode_index=np.array([0, 1] * 5))
    with pytest.raises(ValueError, match="steps must be at least 1"):
        PolicyConfig(steps=0)
    with pytest.raises(DataError, match="no policy"):
        ChunkPolicy.from_pretrained(tmp_path)
