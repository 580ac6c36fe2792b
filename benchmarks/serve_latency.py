"""How long a robot waits for its progress: SARM through `milepost serve` on loopback, beside the bare `model.step`, and 16 robots at once.

    python benchmarks/serve_latency.py [--frames 300] [--robots 16] [--size 96] [--threads 1]

The model is SARM's small preset with random weights; what it says does not matter here. The robots run in a process of their own, each by a
client of its own in a thread, or all in one request. An echo of the same bytes over a WebSocket, with no server of ours, says what the
machine takes for the way alone. At last TOPReward with a tiny VLM: 10 frames a second, of which it looks at two, by a WebSocket.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from websockets.sync.client import connect
from websockets.sync.server import ServerConnection, serve

from milepost.models import use_threads
from milepost.models.sarm.config import SARMConfig
from milepost.models.sarm.model import SARMModel
from milepost.models.topreward.config import TOPRewardConfig
from milepost.models.topreward.model import TOPRewardModel
from milepost.online import Observation, RewardClient, Sessions, pack_observations
from milepost.serving import bind, make_reward_server
from milepost.testing import tiny_vlm

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as the command does
CAMERA, FPS, STATE = "observation.images.top", 30.0, 7
ANSWER_BYTES = 400


def build() -> SARMModel:
    return SARMModel(
        SARMConfig(
            hidden_dim=128, num_layers=2, num_heads=4, encoder="pixels", image_dim=64, text_dim=64, image_key=CAMERA, gap_s=0.5,
            state_mean=(0.0,) * STATE, state_std=(1.0,) * STATE, annotation_mode="single_stage",
        )
    ).eval()  # fmt: skip


def frame(rng: np.random.Generator, size: int) -> tuple[dict[str, np.ndarray], np.ndarray]:
    return {CAMERA: rng.integers(0, 256, (size, size, 3), dtype=np.uint8)}, rng.normal(size=STATE).astype(np.float32)


def timed(count: int, step: Callable[[int], object]) -> np.ndarray:
    """Returns the seconds of each step after 20 to warm up."""
    times = []
    for number in range(count + 20):
        begun = time.perf_counter()
        step(number)
        times.append(time.perf_counter() - begun)
    return np.array(times[20:])


def described(name: str, times: np.ndarray, frames: int = 1) -> str:
    p50, p99 = np.percentile(times, [50, 99]) * 1000
    return f"{name:44s} p50 {p50:7.2f} ms   p99 {p99:7.2f} ms   {frames * len(times) / times.sum():8.1f} frames/s"


def robot(url: str, seed: int, size: int, count: int, out: list[np.ndarray]) -> None:
    rng = np.random.default_rng(seed)
    frames = [frame(rng, size) for _ in range(16)]
    with RewardClient(url) as client:
        session = client.begin(task="move", fps=FPS)
        out.append(timed(count, lambda number: client.step(session, *frames[number % 16])))
        client.end(session)


def clients(url: str, size: int, count: int, robots: int, answers: multiprocessing.Queue) -> None:
    """The robots' process: one alone, many by a thread each, many in one request."""
    alone: list[np.ndarray] = []
    robot(url, 0, size, count, alone)
    answers.put(("one robot, by HTTP", alone[0], 1, None))
    robot(url.replace("http", "ws"), 0, size, count, alone)
    answers.put(("one robot, by a WebSocket", alone[1], 1, None))
    each: list[np.ndarray] = []
    threads = [threading.Thread(target=robot, args=(url, seed, size, count, each)) for seed in range(robots)]
    begun = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    rate = robots * (count + 20) / (time.perf_counter() - begun)
    answers.put((f"{robots} robots, a client each", np.concatenate(each), 1, rate))
    rng = np.random.default_rng(0)
    frames = [frame(rng, size) for _ in range(robots)]
    with RewardClient(url) as client:
        names = [client.begin(task="move", fps=FPS) for _ in range(robots)]
        times = timed(count, lambda _: client.step_all([Observation(name, *each) for name, each in zip(names, frames, strict=True)]))
    answers.put((f"{robots} robots, one request", times, robots, None))


@contextmanager
def served(model: object) -> Iterator[str]:
    """Serves a model on loopback and gives its address."""
    listener, address = bind("127.0.0.1", 0)
    server = make_reward_server(Sessions(model), address, {})
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    yield address.url.rstrip("/")
    server.should_exit = True
    thread.join()
    listener.close()


@contextmanager
def echo() -> Iterator[str]:
    """Sends each message of a WebSocket back as it came, shortened to the length of an answer, and gives the address."""

    def answer(connection: ServerConnection) -> None:
        for message in connection:
            connection.send(message[:ANSWER_BYTES])

    with serve(answer, "127.0.0.1", 0, compression=None) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"ws://127.0.0.1:{server.socket.getsockname()[1]}"
        server.shutdown()
        thread.join()


def echoes(url: str, size: int, count: int, answers: multiprocessing.Queue) -> None:
    """The way alone: the bytes of one frame there, and as many as an answer has back."""
    message = pack_observations([Observation("session", *frame(np.random.default_rng(0), size))])
    with connect(url, compression=None) as connection:
        times = timed(count, lambda _: (connection.send(message), connection.recv()))
    answers.put(("an echo of the same bytes by a WebSocket", times, 1, None))


def topreward_stream(url: str, count: int, answers: multiprocessing.Queue) -> None:
    """One attempt of TOPReward, frame by frame: the times of frames it looks at, and of those between."""
    rng, looked, between = np.random.default_rng(0), [], []
    with RewardClient(url.replace("http", "ws")) as client:
        session = client.begin(task="move", fps=10.0)
        for _ in range(count):
            begun = time.perf_counter()
            result = client.step(session, frame(rng, 96)[0])
            (looked if result.fresh else between).append(time.perf_counter() - begun)
    answers.put((f"TOPReward tiny, {len(looked)} frames that it looks at", np.array(looked), 1, None))
    answers.put((f"TOPReward tiny, {len(between)} frames between", np.array(between), 1, None))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, default=300)
    parser.add_argument("--robots", type=int, default=16)
    parser.add_argument("--size", type=int, default=96)
    parser.add_argument("--threads", type=int)
    args = parser.parse_args()
    model, rng = build(), np.random.default_rng(0)
    use_threads(model, args.threads)
    frames = [frame(rng, args.size) for _ in range(16)]
    model.reset(task="move", fps=FPS)
    print(described("model.step alone", timed(args.frames, lambda number: model.step(*frames[number % 16]))))
    context = multiprocessing.get_context("spawn")
    answers = context.Queue()

    def shown(target: Callable[..., None], arguments: tuple, count: int) -> None:
        """Runs the robots in a process of their own and prints what they measured."""
        process = context.Process(target=target, args=(*arguments, answers))
        process.start()
        for _ in range(count):
            name, times, frames_a_step, rate = answers.get()
            row = described(name, times, frames_a_step)
            print(row if rate is None else row.rsplit("   ", 1)[0] + f"   {rate:8.1f} frames/s")
        process.join()

    with echo() as url:
        shown(echoes, (url, args.size, args.frames), 1)
    with served(model) as url:
        shown(clients, (url, args.size, args.frames, args.robots), 4)
    with tempfile.TemporaryDirectory() as folder:
        topreward = TOPRewardModel(TOPRewardConfig(vlm_name=str(tiny_vlm(Path(folder) / "vlm")), image_key=CAMERA, fps=2.0))
        with served(topreward) as url:
            shown(topreward_stream, (url, args.frames), 2)


if __name__ == "__main__":
    main()
