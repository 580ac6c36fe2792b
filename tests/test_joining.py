"""Parts of a progress file, in any order, become the file that one table in memory would be, byte for byte."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from milepost.core.errors import DataError
from milepost.core.types import Curve, Progress
from milepost.progress import joining
from milepost.progress.joining import joined, write_joined
from milepost.progress.table import progress_rows

LONG = 300_000


def part_of(rng: np.random.Generator, episode: int, row: int, length: int) -> pa.Table:
    """Returns one episode as rows. Every third one has a dense head too, which its neighbours lack."""
    heads = {"sparse": Curve(rng.random(length, dtype=np.float32))}
    if episode % 3 == 0:
        heads["dense"] = Curve(rng.random(length, dtype=np.float32), np.full((length, 2), 0.5, np.float32), ("reach", "lift"))
    return progress_rows(Progress(episode, heads), row)


def written(folder: Path, rng: np.random.Generator, lengths: list[int], near: int) -> tuple[list[Path], list[pa.Table]]:
    """Writes parts of a few episodes each. An episode stands at most about `near` places from its own."""
    starts = np.concatenate([[0], np.cumsum(lengths)])
    order = sorted(range(len(lengths)), key=lambda place: place + near * rng.random())
    tables = [part_of(rng, place, int(starts[place]), lengths[place]) for place in order]
    paths, rest = [], list(tables)
    while rest:
        count = int(rng.integers(1, 5))
        paths.append(folder / f"episodes-{len(paths):06d}.parquet")
        pq.write_table(joined(rest[:count]), paths[-1])
        rest = rest[count:]
    return paths, tables


def in_memory(tables: list[pa.Table], path: Path, group: int) -> bytes:
    table = joined(tables).sort_by("index").replace_schema_metadata({"milepost.model_path": "m"})
    pq.write_table(table.combine_chunks(), path, row_group_size=group)
    return path.read_bytes()


@pytest.mark.parametrize("near", [0, 6, 10_000])
@pytest.mark.parametrize("seed", range(4))
def test_any_order_and_any_groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, near: int, seed: int) -> None:
    """With small row groups, so that rows are written while parts are still to be read."""
    monkeypatch.setattr(joining, "GROUP", 64)
    rng = np.random.default_rng(seed)
    paths, tables = written(tmp_path, rng, [int(n) for n in rng.integers(1, 90, 60)], near)
    write_joined([paths[place] for place in rng.permutation(len(paths))], tmp_path / "file", {"milepost.model_path": "m"})
    assert (tmp_path / "file").read_bytes() == in_memory(tables, tmp_path / "other", 64)


def test_several_of_pyarrow_s_own_groups(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    paths, tables = written(tmp_path, rng, [LONG] * 10, 3)
    write_joined(paths, tmp_path / "file", {"milepost.model_path": "m"})
    assert pq.read_metadata(tmp_path / "file").num_row_groups == 3
    assert (tmp_path / "file").read_bytes() == in_memory(tables, tmp_path / "other", joining.GROUP)


def test_few_rows_are_in_memory_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 200 parts that lie in their order, never more than three groups wait."""
    monkeypatch.setattr(joining, "GROUP", 1000)
    paths, _ = written(tmp_path, np.random.default_rng(1), [250] * 600, 0)
    most, read = [0], joining.joined

    def counted(tables: list[pa.Table]) -> pa.Table:
        table = read(tables)
        most[0] = max(most[0], len(table))
        return table

    monkeypatch.setattr(joining, "joined", counted)
    write_joined(paths, tmp_path / "file", {})
    assert most[0] <= 4000 < len(pq.read_table(tmp_path / "file"))


def test_a_part_without_a_row(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    paths, tables = written(tmp_path, rng, [5, 7], 0)
    pq.write_table(tables[0].slice(0, 0), tmp_path / "episodes-none.parquet")
    write_joined([tmp_path / "episodes-none.parquet", *paths], tmp_path / "file", {"milepost.model_path": "m"})
    assert (tmp_path / "file").read_bytes() == in_memory(tables, tmp_path / "other", joining.GROUP)
    write_joined([tmp_path / "episodes-none.parquet"], tmp_path / "file", {})
    assert len(pq.read_table(tmp_path / "file")) == 0


def test_a_damaged_part_is_named(tmp_path: Path) -> None:
    (path, *_), _ = written(tmp_path, np.random.default_rng(2), [50], 0)
    body = bytearray(path.read_bytes())
    body[4:200] = b"\xff" * 196
    path.write_bytes(body)
    with pytest.raises(DataError, match="episodes-000000"):
        write_joined([path], tmp_path / "file", {})
