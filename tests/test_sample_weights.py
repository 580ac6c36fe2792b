"""Weights in a training loop: numpy and torch alike, LeRobot's numbers batch by batch, samplers, other processes."""

import json
import pickle
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from torch.utils.data import DataLoader, Dataset

from milepost.core.errors import DataError
from milepost.weights.config import RabcConfig
from milepost.weights.loader import SampleWeights, UniformWeights, WeightedSampler
from milepost.weights.result import weigh, weighted_mean

DATA = Path(__file__).parent / "data" / "rabc"
BATCHES = json.loads((DATA / "batches.json").read_text())
"""What LeRobot 0.6.1's weighter said of seeded batches: `benchmarks/lerobot_weights.py --golden`."""


@pytest.fixture
def weights() -> SampleWeights:
    """Frames 10 to 14, of which 12 has no row."""
    return SampleWeights(np.array([14, 10, 11, 13]), np.array([0.0, 1.0, 0.5, 0.25]), fallback_weight=0.75)


@pytest.mark.parametrize("batch", BATCHES, ids=lambda batch: f"{batch['options']['chunk_size']}-{len(batch['index'])}")
@pytest.mark.parametrize("kind", [torch.tensor, np.array])
def test_a_batch_gets_lerobots_weights_and_numbers(batch: dict, kind: object) -> None:
    weights = SampleWeights.from_progress(DATA / "progress.parquet", config=RabcConfig(**batch["options"]))
    weight, stats = weights.compute_batch_weights({"index": kind(batch["index"])})
    assert isinstance(weight, torch.Tensor if kind is torch.tensor else np.ndarray)
    np.testing.assert_allclose(np.asarray(weight), batch["weight"], rtol=1e-5, atol=1e-6)
    assert stats == pytest.approx(batch["stats"], abs=1e-6)
    assert weights.get_stats() == pytest.approx(batch["all"], abs=1e-6)


def test_what_comes_in_decides_what_goes_out(weights: SampleWeights) -> None:
    index = [10, 11, 12, 13, 14, 9, 15, 10**9, -5]
    expected = np.array([1, 0.5, 0.75, 0.25, 0, 0.75, 0.75, 0.75, 0.75], np.float32)
    for asked in (index, np.array(index), np.array(index, np.int32)):
        np.testing.assert_array_equal(weights[asked], expected)
    for dtype in (torch.int64, torch.int32):
        tensor = weights[torch.tensor(index, dtype=dtype).reshape(3, 3)]
        assert (tensor.dtype, tensor.shape, tensor.device.type) == (torch.float32, (3, 3), "cpu")
        np.testing.assert_array_equal(tensor.numpy().ravel(), expected)
    assert weights[11] == 0.5
    assert weights.missing == 5 * 5
    assert weights.mean == pytest.approx(1.75 / 4)


@pytest.mark.parametrize("index", [np.array([1.0]), torch.tensor([1.0]), torch.tensor([True]), ["a"]])
def test_an_index_is_a_whole_number(weights: SampleWeights, index: object) -> None:
    with pytest.raises(DataError, match="whole numbers"):
        weights[index]


def test_a_file_says_its_fallback_and_statistics(tmp_path: Path) -> None:
    value = np.linspace(0, 1, 20)
    config = RabcConfig(5, kappa=0.3, fallback_weight=0.125)
    weighed = weigh(np.arange(20), np.zeros(20, int), value, config=config)
    SampleWeights.of(weighed, head_mode="dense").save(tmp_path / "w.parquet", config, {"progress_file": "p"})
    loaded = SampleWeights.load(tmp_path / "w.parquet")
    np.testing.assert_array_equal(loaded[np.arange(20)], weighed.weight)
    assert loaded[99] == 0.125
    assert loaded.get_stats() == {
        "type": "rabc", "num_frames": 20, "chunk_size": 5, "head_mode": "dense",
        "delta_mean": weighed.delta_mean, "delta_std": weighed.delta_std, "kappa": 0.3,
    }  # fmt: skip
    logged = loaded.metrics(loaded[torch.arange(20)])
    assert logged["sample_weighting/delta_mean"] == weighed.delta_mean
    assert logged["sample_weight_num_zero_weight"] == int((weighed.weight == 0).sum())
    assert logged["sample_weight_mean_weight"] == pytest.approx(float(weighed.weight.mean()))


def test_files_that_are_no_weights(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such file"):
        SampleWeights.load(tmp_path / "none.parquet")
    with pytest.raises(DataError, match=r"missing weight; it has index, episode_index"):
        SampleWeights.load(DATA / "progress.parquet")
    for weight in ([1.0, float("nan")], [1.0, -1.0], [1.0, None], [1.0, float("inf")]):
        pq.write_table(pa.table({"index": [0, 1], "weight": pa.array(weight, pa.float32())}), tmp_path / "w.parquet")
        with pytest.raises(DataError, match="1 weights are missing, NaN, infinite or below 0"):
            SampleWeights.load(tmp_path / "w.parquet")
    for index in ([0, 0], [-1, 0]):
        with pytest.raises(DataError, match="every index once"):
            SampleWeights(np.array(index), np.ones(2))
    with pytest.raises(DataError, match="no row"):
        SampleWeights(np.empty(0, int), np.empty(0))
    pq.write_table(pa.table({"index": [3], "weight": [0.5]}), tmp_path / "mine.parquet")
    assert SampleWeights.load(tmp_path / "mine.parquet")[[3, 4]].tolist() == [0.5, 1.0]


def test_a_batch_without_index_is_refused(weights: SampleWeights) -> None:
    with pytest.raises(DataError, match=r"'index'.*action"):
        weights.compute_batch_weights({"action": torch.zeros(2)})


def test_a_batch_that_weighs_nothing_is_zero_and_teaches_nothing(weights: SampleWeights) -> None:
    weight, stats = weights.compute_batch_weights({"index": torch.tensor([14, 14])})
    assert weight.tolist() == [0, 0]
    assert stats == {"mean_weight": 0, "num_zero_weight": 2, "num_full_weight": 0}
    loss = torch.ones(2, requires_grad=True)
    weighted_mean(loss, weight).backward()
    assert loss.grad.tolist() == [0, 0]


def test_weights_go_to_the_device_asked_for() -> None:
    weights = SampleWeights(np.arange(3), np.array([0.0, 0.5, 1.0]), device="cpu")
    weight, _ = weights.compute_batch_weights({"index": np.array([1, 2])})
    assert isinstance(weight, torch.Tensor)
    assert weight.tolist() == pytest.approx([2 / 3, 4 / 3])


def test_processes_that_share_a_batch_get_the_mean_of_the_whole_one() -> None:
    """Divided by what a batch weighs on average, gradients of two halves (or two accumulated steps) average to that of all; divided by
    each half's own weight they do not: one good sample among poor ones would count as much as a batch of good ones."""
    loss, weight = torch.tensor([1.0, 2.0, 3.0, 4.0]), torch.tensor([1.0, 1.0, 0.0, 0.5])
    mean = float(weight.mean())
    halves = [weighted_mean(loss[part], weight[part], mean_weight=mean) for part in (slice(0, 2), slice(2, 4))]
    assert float(sum(halves) / 2) == pytest.approx(float(weighted_mean(loss, weight)), abs=1e-5)
    assert float(sum(weighted_mean(loss[p], weight[p]) for p in (slice(0, 2), slice(2, 4))) / 2) == pytest.approx(2.75, abs=1e-5)


def test_a_loss_of_another_shape_is_refused() -> None:
    """(B, T) losses times (B,) weights would silently mean something else."""
    with pytest.raises(ValueError, match="average the loss"):
        weighted_mean(torch.ones(4, 4), torch.ones(4))


def test_another_process_gets_its_own_copy(weights: SampleWeights) -> None:
    before = weights[torch.tensor([10, 12])]
    other = pickle.loads(pickle.dumps(weights))
    assert (weights.missing, other.missing) == (1, 0)
    assert torch.equal(other[torch.tensor([10, 12])], before)


class Numbered(Dataset):
    """Positions whose global index is 10 more; asks its weights in the worker that loads it."""

    def __init__(self, weights: SampleWeights) -> None:
        self.weights = weights

    def __len__(self) -> int:
        return 5

    def __getitem__(self, position: int) -> dict[str, object]:
        return {"index": position + 10, "weight": self.weights[position + 10]}


def test_workers_and_the_sampler(weights: SampleWeights) -> None:
    """Frames of weight 0 are never loaded, the others as often as they weigh."""
    sampler = weights.sampler(np.arange(10, 15), 4000, seed=1)
    drawn = torch.cat([batch["index"] for batch in DataLoader(Numbered(weights), batch_size=50, sampler=sampler, num_workers=2)])
    count = np.bincount(drawn.numpy() - 10, minlength=5)
    np.testing.assert_allclose(count / 4000, np.array([1, 0.5, 0.75, 0.25, 0]) / 2.5, atol=0.03)
    assert count[4] == 0
    batch = next(iter(DataLoader(Numbered(weights), batch_size=5, num_workers=1)))
    np.testing.assert_array_equal(batch["weight"], [1, 0.5, 0.75, 0.25, 0])


def test_a_sampler_is_told_by_its_seed_epoch_and_rank() -> None:
    weight = np.arange(100.0)
    one, same, other = WeightedSampler(weight, seed=3), WeightedSampler(weight, seed=3), WeightedSampler(weight, seed=3, rank=1)
    first, second = list(one), list(one)
    assert first == list(same)
    assert first != second
    assert first != list(other)
    same.set_epoch(0)
    assert list(same) == first
    assert len(one) == len(first) == 100
    assert 0 not in first + second


def test_a_sampler_of_more_frames_than_torch_can() -> None:
    """torch.multinomial stops at 2^24 categories."""
    weight = np.zeros(2**24 + 3)
    weight[-1] = 1e-9
    assert set(WeightedSampler(weight, 5)) == {2**24 + 2}


@pytest.mark.parametrize("weight", [np.zeros(3), np.empty(0), np.array([1.0, -1.0]), np.array([1.0, np.nan])])
def test_a_sampler_needs_something_to_draw(weight: np.ndarray) -> None:
    with pytest.raises(DataError, match="not all 0"):
        WeightedSampler(weight)


def test_uniform_is_the_same_interface(weights: SampleWeights) -> None:
    uniform = UniformWeights()
    for batch in ({"index": torch.arange(3)}, {"action": torch.zeros(3, 5, 2)}, {"task": ["a"] * 3, "x": np.zeros((3, 2))}):
        weight, stats = uniform.compute_batch_weights(batch)
        assert np.asarray(weight).tolist() == [1, 1, 1]
        assert stats == {"mean_weight": 1, "num_zero_weight": 0, "num_full_weight": 3}
    assert uniform.get_stats() == {"type": "uniform"}
    assert uniform[np.array([1, 2])].tolist() == [1, 1]
    assert sorted(set(uniform.sampler(3, 200))) == [0, 1, 2]
    assert set(uniform.metrics(np.ones(2))) == {k for k in weights.metrics(np.ones(2)) if "sample_weight_" in k} | {"sample_weighting/type"}
    with pytest.raises(DataError, match="tell its size"):
        uniform.compute_batch_weights({"task": ["a"]})
