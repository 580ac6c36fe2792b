"""Annotating against a stub server of fixed latency: episodes a minute with 1, 4 and 16 requests at once, beside the server's own limit.

    PYTHONPATH=src OMP_NUM_THREADS=1 python benchmarks/annotate.py [--episodes 48] [--seconds 15] [--latency 2.0] [--codec libsvtav1]

Makes a dataset of 480 x 640 at 30 fps, by default as LeRobot encodes it (AV1, every second frame a key frame). The stub is a process of its
own, answers any question after exactly `latency` seconds, any number of them at once; so N requests at once can give at most 60 N / latency
episodes a minute. Also: what preparing an episode takes (rows, decoding, sheets, JPEG), which bounds the rate whatever the server does.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import re
import statistics
import tempfile
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np

from milepost.annotation.loop import AskConfig, annotate_episodes
from milepost.annotation.sampling import sample_frames
from milepost.annotation.sheets import sheets
from milepost.annotation.store import AnnotationStore
from milepost.annotation.subtasks import SubtaskList
from milepost.datasets.reader import LeRobotDataset, open_dataset
from milepost.datasets.recording import Recording
from milepost.datasets.writer import write_dataset
from milepost.vlm.chat import RemoteChatModel
from milepost.vlm.transport import ServerConfig

CAMERA, FPS = "observation.images.top", 30
STAGES = SubtaskList.from_flag("reach, grasp, lift, place")


def moving(frames: int, seed: int) -> Iterator[np.ndarray]:
    """A textured ground that slides under a falling bar: no frame is cheap to encode."""
    ground = np.random.default_rng(seed).integers(0, 255, (60, 80, 3)).repeat(8, 0).repeat(8, 1).astype(np.uint8)
    for i in range(frames):
        image = np.roll(ground, 2 * i, axis=1)
        image[3 * i % 480 : 3 * i % 480 + 8] = 255 - i % 200
        yield image


def make(root: Path, episodes: int, seconds: float, codec: str) -> LeRobotDataset:
    length = round(seconds * FPS)
    state = np.zeros((length, 6), np.float32)
    recordings = (Recording("stack the cubes", state, state, {CAMERA: moving(length, number)}) for number in range(episodes))
    write_dataset(root, recordings, fps=FPS, codec=codec)
    return open_dataset(root)


class Stub(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    latency_s = 1.0

    def log_message(self, *words: Any) -> None:
        pass

    def do_POST(self) -> None:
        start = time.perf_counter()
        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        end = float(re.findall(r"The recording lasts ([\d.]+) seconds", body)[0])
        edges = [round(end * k / len(STAGES), 2) for k in range(len(STAGES))] + [end]
        claims = [{"name": name, "start": a, "end": b} for name, a, b in zip(STAGES.names, edges[:-1], edges[1:], strict=True)]
        message = {"role": "assistant", "content": json.dumps({"subtasks": claims})}
        content = json.dumps({"choices": [{"index": 0, "finish_reason": "stop", "message": message}]}).encode()
        time.sleep(max(0.0, self.latency_s - (time.perf_counter() - start)))
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


def serve(latency_s: float, port: Any) -> None:
    Stub.latency_s = latency_s
    ThreadingHTTPServer.request_queue_size = 64
    server = ThreadingHTTPServer(("127.0.0.1", 0), Stub)
    port.put(server.server_port)
    server.serve_forever()


def run(dataset: LeRobotDataset, url: str, workers: int, folder: Path) -> float:
    """Seconds for all episodes, from the first look to the last answer on disk."""
    stores = {"sparse": AnnotationStore(folder, {"made": "by a benchmark"})}
    chat_model = RemoteChatModel(ServerConfig(url, "stub", concurrency=workers))
    todo = dict.fromkeys(dataset.episode_indices, ("sparse",))
    start = time.perf_counter()
    lost = annotate_episodes(
        dataset, chat_model, todo, stages={"sparse": STAGES}, stores=stores, config=AskConfig((CAMERA,)), workers=workers
    )
    taken = time.perf_counter() - start
    print(f"   {chat_model.usage}")
    chat_model.close()
    assert not lost, lost
    assert len(stores["sparse"].annotations()) == len(dataset), stores["sparse"].failures()
    return taken


def preparation(dataset: LeRobotDataset, count: int) -> dict[str, float]:
    """Median milliseconds an episode, by part."""
    chat_model = RemoteChatModel(ServerConfig("http://127.0.0.1:9/v1", "stub"))
    parts: dict[str, list[float]] = {"rows": [], "decode": [], "sheets": [], "jpeg": []}
    for number in dataset.episode_indices[:count]:
        marks = [time.perf_counter()]
        episode = dataset.episode(number)
        marks.append(time.perf_counter())
        sample = sample_frames(episode.length, episode.fps)
        images = episode.camera(CAMERA)[sample.frames]
        marks.append(time.perf_counter())
        drawn = sheets(images, sample.times_s)
        marks.append(time.perf_counter())
        for sheet in drawn:
            chat_model.prepare_image(sheet)
        marks.append(time.perf_counter())
        for name, a, b in zip(parts, marks[:-1], marks[1:], strict=True):
            parts[name].append(1000 * (b - a))
    chat_model.close()
    print(f"frames shown: {len(sample)}, sheets: {len(drawn)} of {drawn[0].shape[:2]}")
    return {name: statistics.median(times) for name, times in parts.items()}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--episodes", type=int, default=48)
    parser.add_argument("--seconds", type=float, default=15.0)
    parser.add_argument("--latency", type=float, default=2.0)
    parser.add_argument("--codec", default="libsvtav1")
    args = parser.parse_args()
    port = multiprocessing.Queue()
    server = multiprocessing.Process(target=serve, args=(args.latency, port), daemon=True)
    server.start()
    url = f"http://127.0.0.1:{port.get()}/v1"
    with tempfile.TemporaryDirectory() as name:
        dataset = make(Path(name) / "cubes", args.episodes, args.seconds, args.codec)
        parts = preparation(dataset, 10)
        print(
            f"preparing an episode of {args.seconds:g} s, ms: {sum(parts.values()):.0f} = "
            + ", ".join(f"{k} {v:.0f}" for k, v in parts.items())
        )
        print(f"{args.episodes} episodes, every answer after {args.latency:g} s")
        for workers in (1, 4, 16):
            taken = run(dataset, url, workers, Path(name) / f"answers-{workers}")
            rounds = -(-args.episodes // workers)
            limit, reached = 60 * args.episodes / (rounds * args.latency), 60 * args.episodes / taken
            print(f"{workers:2d} at once: {reached:6.1f} episodes a minute, the server's limit {limit:6.1f}: {reached / limit:.0%}")
    server.terminate()


if __name__ == "__main__":
    main()
