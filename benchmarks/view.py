"""What does `milepost view` cost with 50, 500 and 5,000 episodes? Start, first page, list, one episode, a save: server time and bytes.

    PYTHONPATH=src python benchmarks/view.py

Datasets are v3.0 with real meta/ (statistics columns too), rows, annotations and two progress files with stages; episodes are 10 s at
30 fps, and all of them share one small mp4, which costs the list nothing. The server is a process of its own, asked over loopback, each
answer after the first the best of 5. "first page" is everything up to a filled list: the page's own files, the dataset, the list.
Prints a markdown table.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from milepost.datasets.video import encode_video
from milepost.datasets.writer import DATA_PATH, VIDEO_PATH

SIZES = (50, 500, 5000)
FPS, LENGTH = 30, 300
CAMERA = "observation.images.top"
STAGES = ("reach", "grasp", "lift", "place")
TASKS = ("put the cube in the bowl", "fold the towel", "open the drawer")


def build(root: Path, count: int) -> None:
    """A dataset of `count` episodes with two progress files beside it."""
    rng = np.random.default_rng(0)
    lengths = rng.integers(LENGTH - 60, LENGTH + 1, count)
    first = np.concatenate([[0], np.cumsum(lengths)[:-1]])
    total = int(lengths.sum())
    episode, frame = np.repeat(np.arange(count), lengths), np.arange(total) - np.repeat(first, lengths)
    _meta(root, count, lengths, first)
    rows = {
        "observation.state": pa.FixedSizeListArray.from_arrays(pa.array(rng.random(total * 6, np.float32)), 6),
        "action": pa.FixedSizeListArray.from_arrays(pa.array(rng.random(total * 6, np.float32)), 6),
        "next.success": pa.array((frame == np.repeat(lengths, lengths) - 1) & (episode % 4 > 0)),
        "timestamp": pa.array((frame / FPS).astype(np.float32)),
        "frame_index": pa.array(frame),
        "episode_index": pa.array(episode),
        "index": pa.array(np.arange(total)),
        "task_index": pa.array(episode % len(TASKS)),
    }
    path = root / DATA_PATH.format(chunk_index=0, file_index=0)
    path.parent.mkdir(parents=True)
    pq.write_table(pa.table(rows), path, row_group_size=LENGTH)
    pictures = (np.full((96, 128, 3), i % 255, np.uint8) for i in range(LENGTH))
    encode_video(root / VIDEO_PATH.format(video_key=CAMERA, chunk_index=0, file_index=0), pictures, FPS, codec="libx264")
    for model, noise in (("sarm", 0.01), ("topreward", 0.05)):
        anchors = np.arange(0, total + 15, 15)
        off = np.interp(np.arange(total), anchors, rng.normal(0, noise, len(anchors)))
        value = np.clip(frame / np.repeat(lengths, lengths) * (1 - 0.4 * (episode % 4 == 0)) + off, 0, 1)
        stage = rng.dirichlet(np.ones(len(STAGES)), total).astype(np.float32)
        columns = {"index": rows["index"], "episode_index": rows["episode_index"], "frame_index": rows["frame_index"]}
        columns |= {"progress_sparse": pa.array(value.astype(np.float32))}
        columns |= {f"stage_sparse_{k}": pa.array(stage[:, k]) for k in range(len(STAGES))}
        pq.write_table(pa.table(columns), root / f"{model}_progress.parquet")


def _meta(root: Path, count: int, lengths: np.ndarray, first: np.ndarray) -> None:
    cuts = [[int(n) * k // len(STAGES) for k in range(len(STAGES) + 1)] for n in lengths]
    columns: dict[str, Any] = {
        "episode_index": np.arange(count),
        "tasks": [[TASKS[e % len(TASKS)]] for e in range(count)],
        "length": lengths,
        "data/chunk_index": np.zeros(count, np.int64),
        "data/file_index": np.zeros(count, np.int64),
        "dataset_from_index": first,
        "dataset_to_index": first + lengths,
        f"videos/{CAMERA}/chunk_index": np.zeros(count, np.int64),
        f"videos/{CAMERA}/file_index": np.zeros(count, np.int64),
        f"videos/{CAMERA}/from_timestamp": np.zeros(count),
        f"videos/{CAMERA}/to_timestamp": lengths / FPS,
        "sparse_subtask_names": [list(STAGES)] * count,
        "sparse_subtask_start_frames": [cut[:-1] for cut in cuts],
        "sparse_subtask_end_frames": [cut[1:] for cut in cuts],
        "sparse_subtask_start_times": [[f / FPS for f in cut[:-1]] for cut in cuts],
        "sparse_subtask_end_times": [[f / FPS for f in cut[1:]] for cut in cuts],
    }
    for feature in ("observation.state", "action", CAMERA):
        for name in ("min", "max", "mean", "std", "q01", "q99"):
            columns[f"stats/{feature}/{name}"] = [[0.1] * 6] * count
    path = root / "meta" / "episodes" / "chunk-000" / "file-000.parquet"
    path.parent.mkdir(parents=True)
    pq.write_table(pa.table(columns), path)
    pq.write_table(pa.table({"task_index": range(len(TASKS)), "task": TASKS}), root / "meta" / "tasks.parquet")
    vector = {"dtype": "float32", "shape": [6], "names": None}
    features: dict[str, Any] = {CAMERA: {"dtype": "video", "shape": [96, 128, 3], "names": ["height", "width", "channels"]}}
    features |= {"observation.state": vector, "action": vector, "next.success": {"dtype": "bool", "shape": [1]}}
    info = {"codebase_version": "v3.0", "fps": FPS, "features": features, "total_episodes": count, "total_frames": int(lengths.sum())}
    info |= {"chunks_size": 1000, "data_path": DATA_PATH, "video_path": VIDEO_PATH}
    (root / "meta" / "info.json").write_text(json.dumps(info))
    shares = dict.fromkeys(STAGES, 1 / len(STAGES))
    (root / "meta" / "temporal_proportions_sparse.json").write_text(json.dumps(shares))


def asked(url: str, body: Any = None) -> tuple[float, bytes]:
    """Seconds and the answer."""
    origin = "/".join(url.split("/")[:3])
    headers = {"Content-Type": "application/json", "Origin": origin} if body is not None else {}
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, headers, method="GET" if body is None else "PUT")
    start = time.perf_counter()
    with urllib.request.urlopen(request) as answer:
        content = answer.read()
    return time.perf_counter() - start, content


def best(url: str, times: int = 5) -> float:
    return min(asked(url)[0] for _ in range(times))


def measure(root: Path, count: int) -> list[str]:
    build(root, count)
    start = time.perf_counter()
    command = [sys.executable, "-m", "milepost", "view", str(root), "--port", "0"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={**os.environ, "COLUMNS": "200"})
    try:
        assert process.stdout is not None
        url = re.search(r"http://[\d.:]+", process.stdout.readline())[0]  # type: ignore[index]
        first_s, page = asked(f"{url}/")
        open_s = time.perf_counter() - start
        files = set(re.findall(r"/page/[\w.-]+", page.decode()))
        loads = [asked(f"{url}{name}") for name in sorted(files)] + [asked(f"{url}/api/dataset"), asked(f"{url}/api/episodes")]
        page_s, page_b = first_s + sum(s for s, _ in loads), len(page) + sum(len(b) for _, b in loads)
        counting = time.perf_counter()
        while not json.loads(asked(f"{url}/api/events")[1])["ready"]:
            pass
        ready_s = time.perf_counter() - counting
        listed = asked(f"{url}/api/episodes")[1]
        list_s, one_s = best(f"{url}/api/episodes"), best(f"{url}/api/episodes/{count // 2}")
        head = json.loads(asked(f"{url}/api/episodes/{count // 2}")[1])["heads"]["sparse"]
        head["segments"][0]["stop"] += 5
        head["segments"][1]["start"] += 5
        save_s, _ = asked(
            f"{url}/api/episodes/{count // 2}/segments", {"head": "sparse", "segments": head["segments"], "version": head["version"]}
        )
        again_s, _ = asked(f"{url}/api/episodes")
        peak = re.search(r"VmHWM:\s+(\d+)", Path(f"/proc/{process.pid}/status").read_text())
    finally:
        process.terminate()
        process.wait()
    memory = f"{int(peak[1]) / 1024:.0f} MB" if peak else "-"
    cells = [f"{count:,}", f"{open_s:.2f} s", f"{page_s * 1000:.0f} ms", f"{page_b / 1e6:.2f} MB", f"{list_s * 1000:.0f} ms"]
    cells += [
        f"{len(listed) / 1e6:.2f} MB",
        f"{ready_s:.2f} s",
        f"{one_s * 1000:.0f} ms",
        f"{save_s * 1000:.0f} ms",
        f"{again_s * 1000:.0f} ms",
    ]
    return [*cells, memory]


def main() -> None:
    columns = ["episodes", "start", "first page", "bytes", "list again", "list with events", "events ready after", "one episode"]
    columns += ["save", "list after a save", "memory"]
    print("| " + " | ".join(columns) + " |\n|" + "---|" * len(columns))
    for count in SIZES:
        with tempfile.TemporaryDirectory() as folder:
            print("| " + " | ".join(measure(Path(folder) / "dataset", count)) + " |", flush=True)


if __name__ == "__main__":
    main()
