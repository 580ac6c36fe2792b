"""Datasets with curves, annotations and marks, as `milepost view` opens them, and a client that asks as the page does."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from starlette.testclient import TestClient

from builders import build_dataset
from milepost.cli.view import Args, open_review
from milepost.core.types import Curve, Progress, Segment
from milepost.datasets.annotations import write_annotations
from milepost.datasets.reader import open_dataset
from milepost.progress.store import ProgressStore
from milepost.serving.address import BindAddress, bind
from milepost.viewer.guard import Guard
from milepost.viewer.review import Review
from milepost.viewer.server import create_app
from milepost.viewer.serving import make_server

ORIGIN = "http://127.0.0.1:8000"
NAMES = ("reach", "push")
LENGTHS = (29, 34, 26, 40)


def thirds(length: int, names: Sequence[str] = NAMES) -> tuple[Segment, ...]:
    cuts = [length * k // len(names) for k in range(len(names) + 1)]
    return tuple(Segment(name, start, stop) for name, start, stop in zip(names, cuts, cuts[1:], strict=False))


def write_progress(root: Path, name: str, curves: Mapping[int, Any], *, stages: int = 0, **provenance: str) -> Path:
    """`<root>/<name>_progress.parquet`: episode -> its curve, or (sparse, dense). stages: columns of stage probabilities, even by row."""
    dataset = open_dataset(root)
    path = root / f"{name}_progress.parquet"
    store = ProgressStore(path, {"dataset": dataset.name, "dataset_fingerprint": dataset.fingerprint, "model": name, **provenance})
    for number, told in curves.items():
        sparse, dense = (np.asarray(each, np.float32) for each in told) if isinstance(told, tuple) else (np.asarray(told, np.float32), None)
        start, stop = dataset.row_range(number)
        stage = np.eye(stages, dtype=np.float32)[np.arange(stop - start) * stages // (stop - start)] if stages else None
        store.add(Progress(number, {"sparse": Curve(sparse, stage)} | ({} if dense is None else {"dense": Curve(dense)})), start)
    store.finish()
    return path


def annotated_dataset(root: Path, *, lengths: Sequence[int] = LENGTHS, **options: Any) -> Path:
    """Every episode in two equal stages, and the curve of one model: straight up."""
    build_dataset(root, lengths=lengths, **options)
    write_annotations(root, {n: {"sparse": thirds(length)} for n, length in enumerate(lengths)}, names={"sparse": NAMES})
    write_progress(root, "sarm", {n: np.linspace(0, 1, length) for n, length in enumerate(lengths)})
    return root


def review_of(root: Path, **options: Any) -> Review:
    """As the command opens it."""
    return open_review(Args(str(root), **options))


@contextmanager
def page_of(review: Review, films: VideoCache | None = None, door: BindAddress | None = None) -> Iterator[TestClient]:
    """What the page would send, to an application in this process."""
    app = Guard(create_app(review, films), door or BindAddress("127.0.0.1", 8000))
    with TestClient(app, base_url=ORIGIN, headers={"origin": ORIGIN}, raise_server_exceptions=False) as client:
        yield client


@contextmanager
def served(review: Review, films: VideoCache | None = None) -> Iterator[str]:
    """The address of a real server in a thread."""
    socket, door = bind("127.0.0.1", 0)
    running = make_server(review, door, films)
    thread = threading.Thread(target=running.run, kwargs={"sockets": [socket]}, daemon=True)
    thread.start()
    until = time.monotonic() + 20
    while not running.started and time.monotonic() < until:
        time.sleep(0.01)
    try:
        yield door.url.rstrip("/")
    finally:
        running.should_exit = True
        thread.join(20)
        socket.close()
        assert not thread.is_alive()
