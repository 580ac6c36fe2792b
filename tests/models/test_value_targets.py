"""What a value model learns: returns by hand, bins, two-hot and HL-Gauss targets."""

import math

import numpy as np
import pytest
import torch

from milepost.models.value.config import ValueConfig
from milepost.models.value.prepare import with_statistics
from milepost.models.value.targets import BOUNDARY, above_boundary, bin_centres, frame_returns, hl_gauss, two_hot
from milepost.models.value.train import ValueRecipe
from milepost.testing import dot_episodes
from milepost.weights.advantage_lerobot import FAILURE_FRAMES, lerobot_returns


def test_returns_by_hand() -> None:
    # 3 frames, the longest success has 5: four frames after the first are a return of -0.8, so the scale is 5
    np.testing.assert_allclose(frame_returns(3, False, 5.0, 5.0), [-2 / 5, -1 / 5, 0])
    np.testing.assert_array_equal(frame_returns(3, True, 5.0, 5.0), [-1, -1, -1])  # C = the scale
    np.testing.assert_allclose(frame_returns(3, True, 5.0, 2.0), [-4 / 5, -3 / 5, -2 / 5])


@pytest.mark.parametrize("has_failed", [False, True])
def test_returns_are_lerobots_where_asked(has_failed: bool) -> None:
    longest = 60
    ours = frame_returns(40, has_failed, float(longest - 1 + FAILURE_FRAMES), float(FAILURE_FRAMES))
    np.testing.assert_allclose(ours, lerobot_returns(40, has_failed, longest)[1], atol=1e-12)


def test_bins_are_201_from_minus_one_to_zero() -> None:
    centres = bin_centres(ValueConfig().bins)
    assert (len(centres), centres[0], centres[-1]) == (201, -1.0, 0.0)
    torch.testing.assert_close(centres.diff(), torch.full((200,), 0.005), atol=1e-6, rtol=0)


def test_two_hot_by_hand() -> None:
    # five bins: -1, -.75, -.5, -.25, 0. A return of -.8 lies a fifth of the way from -.75 to -1.
    torch.testing.assert_close(two_hot(torch.tensor([-0.8, -1.0, 0.0, -7.0, 0.2]), 5), torch.tensor([
        [0.2, 0.8, 0, 0, 0], [1, 0, 0, 0, 0], [0, 0, 0, 0, 1], [1, 0, 0, 0, 0], [0, 0, 0, 0, 1],
    ]), atol=1e-6, rtol=0)  # fmt: skip


def test_two_hot_has_the_return_as_its_mean() -> None:
    returns = torch.linspace(-1, 0, 987)
    torch.testing.assert_close(two_hot(returns, 201) @ bin_centres(201), returns, atol=1e-6, rtol=0)


def test_hl_gauss_by_hand() -> None:
    # bins of width 1/4 around -.5, sigma one bin: Phi(.5) - Phi(-.5) in the middle, over what lies inside [-1.125, .125]
    def phi(x: float) -> float:
        return 0.5 * (1 + math.erf(x / math.sqrt(2)))

    inside = phi(2.5) - phi(-2.5)
    target = hl_gauss(torch.tensor([-0.5]), 5, 1.0)[0]
    expected = [(phi(x + 0.5) - phi(x - 0.5)) / inside for x in (-2, -1, 0, 1, 2)]
    torch.testing.assert_close(target, torch.tensor(expected), atol=1e-6, rtol=0)


def test_hl_gauss_is_one_bin_at_the_ends_and_stays_on_its_side_of_the_boundary() -> None:
    ends = hl_gauss(torch.tensor([-1.0, 0.0]), 201, 3.0)
    torch.testing.assert_close(ends, two_hot(torch.tensor([-1.0, 0.0]), 201))
    longest = hl_gauss(torch.tensor([-0.8]), 201, 3.0)[0]  # the first frame of the longest success
    assert longest[~above_boundary(201)].sum() < 1e-6
    assert BOUNDARY == -0.9


def test_scales_are_a_tasks_own() -> None:
    episodes = dot_episodes(8, failing=2, tasks=2)  # 6 and 7 fail, one of each task
    config = with_statistics(ValueConfig(), episodes)
    for task in ("visit the places with dot 0", "visit the places with dot 1"):
        lengths = [each.length - 1 for each in episodes if each.task == task and each.success]
        assert config.pace(task) == pytest.approx((max(lengths) / 0.8, np.median(lengths)))
    recipe = ValueRecipe(ValueConfig())
    target = recipe.targets(episodes[0], config)
    scale = config.scales[0]
    assert target[-1] == 0
    assert target[0] == pytest.approx(-(episodes[0].length - 1) / scale)
    np.testing.assert_array_equal(recipe.targets(episodes[6], config), -1)


def test_lerobots_scale() -> None:
    episodes = dot_episodes(4, failing=1)
    config = with_statistics(ValueConfig(normalise="lerobot"), episodes)
    longest = max(each.length for each in episodes)
    assert config.scales == (longest - 1 + 50,)
    assert not config.knows_success
    got = ValueRecipe(config).targets(episodes[3], config)
    np.testing.assert_allclose(got, lerobot_returns(episodes[3].length, True, longest)[1], atol=1e-6)
