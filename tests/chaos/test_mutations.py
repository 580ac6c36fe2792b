"""Damaged and hostile files in place of every kind of file a dataset or a model has: whatever is in them, a verb ends soon with an exit
code and words, never with a traceback, and never changes what it was given.

`make chaos` (MILEPOST_CHAOS=N) draws N times as many. A failure names its seed; MILEPOST_CHAOS_ONLY=SEED plays one alone.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from numbered import CAMERAS, write_numbered
from zygote import Zygote, zygote

ROUNDS = 6 * int(os.environ.get("MILEPOST_CHAOS", "1"))
ONLY = os.environ.get("MILEPOST_CHAOS_ONLY")
SECONDS, MEGABYTES = 60, 1500
"""What one command may take; the machine may be busy. It trains two steps of a small model at most."""
WIDE = 1300
"""Letters of a line that a person is asked to read."""

DEEP = "[" * 5000 + "]" * 5000
VALUES: tuple[Any, ...] = (
    *(None, True, False, -1, 0, 0.5, 1e300, -1e300, 10**19, 10**46, float("nan"), float("inf")),
    *("", "x", "../../../etc/passwd", "/etc/passwd", "a\x00b", "x" * 20_000),
    *("{0}", "{chunk_index:>3000000000}", "{chunk_index.__class__}"),
    *("\x1b[31mred", "[/red]", "[link=x]y", "\u202ebidi", "\U0001f600" * 40, "__proto__", "constructor", "<script>alert(1)</script>"),
    *([], {}, [None], [[]], {"a": {"b": []}}, [1, "x", None], list(range(5000))),
)


def _places(content: Any, path: tuple = ()) -> Iterator[tuple]:
    """Every place in JSON, as a path of keys."""
    yield path
    inside = content.items() if isinstance(content, dict) else enumerate(content[:8]) if isinstance(content, list) else ()
    for key, value in inside:
        yield from _places(value, (*path, key))


def _with(content: Any, path: tuple, value: Any) -> Any:
    if not path:
        return value
    out = dict(content) if isinstance(content, dict) else list(content)
    out[path[0]] = _with(content[path[0]], path[1:], value)
    return out


def another_value(path: Path, rng: np.random.Generator) -> str:
    """One place of a JSON file holds something else, or is gone."""
    lines = path.suffix == ".jsonl"
    whole = [json.loads(line) for line in path.read_text().splitlines()] if lines else json.loads(path.read_text())
    places = list(_places(whole))
    place = places[int(rng.integers(len(places)))]
    value = VALUES[int(rng.integers(len(VALUES)))]
    changed = _with(whole, place, value)
    if lines and isinstance(changed, list):
        path.write_text("".join(json.dumps(line) + "\n" for line in changed))
    else:
        path.write_text(json.dumps(changed))
    return f"{'.'.join(map(str, place))} = {str(value)[:40]!r}"


def another_column(path: Path, rng: np.random.Generator) -> str:
    """A column of a parquet file is gone, twice there, of another type, null, or holds odd numbers."""
    table = pq.read_table(path)
    name = table.column_names[int(rng.integers(table.num_columns))]
    place, kind = table.column_names.index(name), int(rng.integers(8))
    count = table.num_rows
    odd = VALUES[int(rng.integers(10))]
    new: dict[int, Callable[[], pa.Array]] = {
        2: lambda: pa.array(["x\x1b[31m"] * count),
        3: lambda: pa.nulls(count, table.schema.field(name).type),
        4: lambda: pa.array([float(odd) if isinstance(odd, int | float) and abs(odd) < 1e308 else float("nan")] * count, pa.float64()),
        5: lambda: pa.array([[1.0] * (i % 3) for i in range(count)]),
        6: lambda: pa.array([b"\x89PNG\r\n"] * count),
        7: lambda: pa.array(np.full(count, -(2**62)), pa.int64()),
    }
    if kind == 0:
        table = table.drop_columns([name])
    elif kind == 1:
        table = table.append_column(name, table.column(name))
    else:
        table = table.set_column(place, name, new[kind]())
    pq.write_table(table, path)
    return f"column {name}, kind {kind}"


def other_rows(path: Path, rng: np.random.Generator) -> str:
    """Rows are gone, doubled, shuffled."""
    table = pq.read_table(path)
    kind = int(rng.integers(4))
    take = {
        0: np.arange(0),
        1: np.arange(table.num_rows // 2),
        2: np.repeat(np.arange(table.num_rows), 2),
        3: rng.permutation(table.num_rows),
    }[kind]
    pq.write_table(table.take(pa.array(take)), path)
    return f"rows, kind {kind}"


def other_bytes(path: Path, rng: np.random.Generator) -> str:
    """Cut, flipped, zeroed, longer, empty, or text."""
    content = bytearray(path.read_bytes())
    kind, at = int(rng.integers(7)), int(rng.integers(max(1, len(content))))
    if kind == 0:
        content = content[:at]
    elif kind == 1:
        for place in rng.integers(0, max(1, len(content)), 20):
            content[int(place) : int(place) + 1] = bytes([int(rng.integers(256))])
    elif kind == 2:
        content[at : at + 400] = bytes(min(400, len(content) - at))
    elif kind == 3:
        content += bytes(rng.integers(0, 256, 5000, dtype=np.uint8))
    else:
        content = bytearray((b"", DEEP.encode(), "ünï".encode("latin-1"))[kind - 4])
    path.write_bytes(content)
    return f"bytes, kind {kind} at {at}"


def no_file(path: Path, rng: np.random.Generator) -> str:
    """A pipe, a device, a folder, a link to nowhere or to itself, or nothing."""
    kind = int(rng.integers(6))
    path.unlink()
    if kind == 0:
        os.mkfifo(path)
    elif kind in (1, 2, 3):
        path.symlink_to(("/dev/zero", "nowhere", path.name)[kind - 1])
    elif kind == 4:
        path.mkdir()
    return ("a pipe", "/dev/zero", "a dangling link", "a loop", "a folder", "nothing")[kind]


HOW = {
    ".json": (another_value, another_value, another_value, other_bytes, no_file),
    ".jsonl": (another_value, other_bytes, no_file),
    ".parquet": (another_column, another_column, other_rows, other_bytes, no_file),
    ".mp4": (other_bytes, other_bytes, no_file),
    ".safetensors": (other_bytes, other_bytes, no_file),
    ".pt": (other_bytes, other_bytes, no_file),
}
MODEL = ("--preset", "small", "--batch-size", 4, "--gap-s", 0.2, "--device", "cpu", "--annotation-mode", "sparse_only", "--holdout", 0)
NEAR = ("--progress", "set/near_progress.parquet")
INFO, CLOCK, SARM = ("info", "set"), ("label", "set", "--model", "elapsed"), ("label", "set", "--model", "model", "--no-cache")
COPY = ("copy", "set", *NEAR, "--output-dir", "out")
EVALUATE, WEIGH = ("evaluate", "set", *NEAR), ("weigh", "set", *NEAR, "--chunk-size", 5)
PLOT = ("plot", "set", *NEAR, "--num-visualizations", 1, "--output-dir", "out")
TRAIN = ("train", "set", *MODEL, "--steps")
VIEW = ("view", "set", "--export-html", "out.html", "--episodes", 0)
TARGETS: dict[str, tuple[str, Sequence[Sequence[object]]]] = {
    "info": ("set/meta/info.json", (INFO, CLOCK, COPY)),
    "tasks": ("set/meta/tasks.parquet", (INFO, CLOCK)),
    "episodes": ("set/meta/episodes/chunk-000/file-000.parquet", (INFO, CLOCK, EVALUATE)),
    "data": ("set/data/chunk-000/file-000.parquet", (INFO, CLOCK, COPY)),
    "stats": ("set/meta/stats.json", (INFO, COPY)),
    "proportions": ("set/meta/temporal_proportions_sparse.json", (INFO, (*TRAIN, 1, "--output-dir", "out"))),
    "film": (f"set/videos/{CAMERAS[0]}/chunk-000/file-000.mp4", (INFO, SARM)),
    "progress": ("set/near_progress.parquet", (WEIGH, EVALUATE, PLOT)),
    "weights": ("weights.parquet", ((*COPY, "--weights", "weights.parquet"),)),
    "model config": ("model/config.json", (SARM,)),
    "model weights": ("model/model.safetensors", (SARM,)),
    "evaluation": ("model/evaluation.json", (("evaluate", "set", "--progress", "sarm_progress.parquet"),)),
    "mark of a run": ("begun/run.json", ((*TRAIN, 400, "--output-dir", "begun"),)),
    "log": ("begun/log.jsonl", ((*TRAIN, 2, "--output-dir", "begun", "--overwrite"),)),
    "checkpoint": ("begun/checkpoint.pt", ((*TRAIN, 2, "--output-dir", "begun"),)),
    "provenance": ("set/elapsed_progress.parquet.partial/provenance.json", (CLOCK,)),
    "review": ("set.review.json", ((*VIEW, "--review-file", "set.review.json"),)),
    "stage names": (
        "stages.json",
        (("annotate", "set", "--sparse-file", "stages.json", "--model", "m", "--base-url", "http://127.0.0.1:9/v1"),),
    ),
    "corrections": ("corrections.json", (("annotate", "set", "--import", "corrections.json"),)),
}


@pytest.fixture(scope="module")
def nursery(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Zygote]:
    with zygote(tmp_path_factory.mktemp("zygote")) as process:
        yield process


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory, nursery: Zygote) -> Path:
    folder = tmp_path_factory.mktemp("world")
    write_numbered(folder / "set", lengths=(30, 24, 36))
    for words in (
        ("train", "set", "--output-dir", "model", "--steps", 2, *MODEL),
        ("label", "set", "--model", "model", "--no-cache", "--output-path", "sarm_progress.parquet"),
        ("weigh", "set", "--progress", "set/near_progress.parquet", "--output-path", "weights.parquet", "--chunk-size", 5),
        ("annotate", "set", "--to-file", "corrections.json"),
    ):
        run = nursery.run(*_in(folder, words))
        assert run.wait() == 0, run.words
    shutil.copytree(folder / "model", folder / "begun")
    (folder / "begun" / "run.json").write_text(json.dumps({"key": "0123456789abcdef", "done": {"steps": 2}}))
    import torch

    torch.save({"key": "0123456789abcdef", "step": 1, "model": {}}, folder / "begun" / "checkpoint.pt")
    partial = folder / "set" / "elapsed_progress.parquet.partial"
    partial.mkdir()
    (partial / "provenance.json").write_text(json.dumps({"model_path": "elapsed", "settings": "{}", "config": ""}))
    (folder / "stages.json").write_text(json.dumps({"sparse": ["reach", "lift", "place"]}))
    from milepost.datasets.reader import open_dataset

    about = {"dataset": "set", "dataset_footage": open_dataset(folder / "set").footage_fingerprint}
    (folder / "set.review.json").write_text(json.dumps({**about, "marks": [{"episode": 1, "mark": "drop", "note": "torn"}]}))
    return folder


def _in(folder: Path, words: Sequence[object]) -> list[object]:
    """The command with its files in this folder."""
    places = ("set", "model", "begun", "out", "weights", "stages", "corrections", "sarm_progress")
    return [folder / str(word) if str(word).split("/")[0].split(".")[0] in places else word for word in words]


def _hashes(folder: Path, but: str) -> dict[str, str]:
    files = (p for tree in ("set/data", "set/meta", "set/videos", "model") for p in sorted((folder / tree).rglob("*")))
    return {str(p): hashlib.sha256(p.read_bytes()).hexdigest() for p in files if p.is_file() and not p.is_symlink() and but not in str(p)}


@pytest.mark.parametrize("target", TARGETS)
def test_whatever_is_in_a_file(target: str, world: Path, nursery: Zygote, tmp_path: Path) -> None:
    name, commands = TARGETS[target]
    for seed in range(ROUNDS) if ONLY is None else [int(ONLY)]:
        rng = np.random.default_rng([seed, sum(target.encode())])
        there = Path(shutil.copytree(world, tmp_path / f"{seed}"))
        ways = HOW[Path(name).suffix]
        what = ways[int(rng.integers(len(ways)))](there / name, rng)
        words = commands[int(rng.integers(len(commands)))]
        where = f"{target}, seed {seed}: {what}; milepost {' '.join(map(str, words))}"
        before = _hashes(there, Path(name).name)
        child = nursery.run(*_in(there, words))
        try:
            code = child.wait(SECONDS)
        except AssertionError as error:
            raise AssertionError(where) from error
        text = child.words
        assert child.megabytes < MEGABYTES, f"{where} took {child.megabytes} MB"
        assert code in (0, 1, 2), f"{where}: {text[-3000:]}"
        assert code == 0 or text.strip(), where
        assert "Traceback" not in text, where
        assert "\x1b[31m" not in text, where
        assert max(map(len, text.splitlines()), default=0) < WIDE, where
        if words[0] != "annotate":
            assert _hashes(there, Path(name).name) == before, where
        shutil.rmtree(there)
