"""Many robots at `milepost serve` for a minute, with everything that goes wrong: is each answer the right one, and does memory stay?

    python benchmarks/serve_load.py [--clients 200] [--seconds 60]

Half of the clients use HTTP, half a WebSocket. Each follows recorded episodes and compares every answer with the offline curve. Meanwhile
clients are cut off in the middle of a request, readers are slow, bodies are malformed, and connections stay half open. In the middle of the
time the server is killed and started again: clients are told that their attempt is lost, and begin another. The model is SARM, tiny.
"""

from __future__ import annotations

import argparse
import asyncio
import math
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import numpy as np

from milepost.core import DataError
from milepost.online import NPZ, AsyncRewardClient, Observation, pack_observations
from milepost.testing import dot_episodes, tiny_sarm

MALFORMED = (
    b"POST /step HTTP/1.1\r\nhost: 127.0.0.1:%d\r\ncontent-type: application/x-npz\r\ncontent-length: 5\r\n\r\nhello",
    b"GARBAGE\r\n\r\n",
)


class Tally:
    """What the clients saw."""

    def __init__(self) -> None:
        self.answers = Counter[str]()
        self.times: list[float] = []
        self.largest_difference = 0.0


def start(folder: Path, port: int) -> tuple[subprocess.Popen, int]:
    """Starts the server and returns it with its port, once it answers."""
    words = ["serve", "--model", str(folder), "--port", str(port), "--device", "cpu", "--max-sessions", "512", "--idle-s", "20"]
    process = subprocess.Popen([sys.executable, "-m", "milepost", *words], stdout=subprocess.PIPE, text=True, bufsize=1)
    assert process.stdout is not None
    match = re.search(r"http://127\.0\.0\.1:(\d+)", process.stdout.readline())
    assert match is not None
    return process, int(match[1])


def memory_mb(process: subprocess.Popen) -> float:
    rows = Path(f"/proc/{process.pid}/status").read_text()
    return int(re.search(r"VmRSS:\s+(\d+)", rows)[1]) / 1024  # type: ignore[index]


async def robot(url: str, number: int, until: float, episodes: list, curves: list, tally: Tally) -> None:
    """Follows one episode after the other. Every call has an answer: a result, a reason, or an error."""
    turn = number
    async with AsyncRewardClient(url, timeout_s=30.0, reconnect_s=30.0) as client:
        while time.monotonic() < until:
            episode, curve = episodes[turn % len(episodes)], curves[turn % len(episodes)]
            turn += 1
            try:
                session = await client.begin(task=episode.task, fps=episode.fps)
                for frame in range(episode.length):
                    begun = time.perf_counter()
                    images = {camera: frames[frame] for camera, frames in episode.stacked.items()}
                    result = await client.step(session, images, episode.state[frame])
                    tally.times.append(time.perf_counter() - begun)
                    if result.reason:
                        tally.answers["attempt lost with the server, and said" if "began anew" in result.reason else result.reason] += 1
                        session = ""
                        break
                    tally.answers[
                        "right" if result.frame == frame and math.isclose(result.progress, curve[frame], abs_tol=1e-5) else "WRONG"
                    ] += 1
                    tally.largest_difference = max(tally.largest_difference, abs(result.progress - curve[frame]))
                    if time.monotonic() > until:
                        break
                if session:
                    await client.end(session)
            except DataError as error:
                tally.answers[re.sub(r"[0-9a-f]{16}|\d+", "N", str(error))[:90]] += 1


async def vandal(port: int, until: float, body: bytes, tally: Tally) -> None:
    """Does what broken clients do, ten times a second."""
    head = f"POST /step HTTP/1.1\r\nhost: 127.0.0.1:{port}\r\ncontent-type: {NPZ}\r\ncontent-length: {len(body)}\r\n\r\n".encode()
    open_ends: list[asyncio.StreamWriter] = []
    turn = 0
    while time.monotonic() < until:
        turn += 1
        await asyncio.sleep(0.1)
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            continue
        kind = turn % 5
        if kind == 0:
            writer.write(head + body[: len(body) // 2])  # killed in the middle of a request
        elif kind == 1:
            writer.write(head + body)  # killed before its answer
        elif kind == 2:
            writer.write(MALFORMED[0] % port)
        elif kind == 3:
            writer.write(MALFORMED[1])
        else:  # half open, or never reads
            writer.write((head + body) * 3 if turn % 2 else b"POST /st")
            open_ends.append(writer)
        tally.answers[f"(vandalism {kind})"] += 1
        if kind != 4:
            writer.transport.abort()
        if len(open_ends) > 30:
            open_ends.pop(0).transport.abort()


async def load(
    port: int, args: argparse.Namespace, folder: Path, first: subprocess.Popen, tally: Tally
) -> tuple[subprocess.Popen, list[float]]:
    episodes, model = dot_episodes(8), tiny_sarm()
    curves = [model.predict(each).main.value for each in episodes]
    for each in episodes:
        object.__setattr__(each, "stacked", {camera: each.camera(camera)[np.arange(each.length)] for camera in each.cameras})
    body = pack_observations(
        [Observation("nobody", {camera: frames[0] for camera, frames in episodes[0].stacked.items()}, episodes[0].state[0])]
    )
    until, sizes, process = time.monotonic() + args.seconds, [], first
    robots = [
        asyncio.create_task(robot(f"{('http', 'ws')[n % 2]}://127.0.0.1:{port}", n, until, episodes, curves, tally))
        for n in range(args.clients)
    ]
    robots.append(asyncio.create_task(vandal(port, until, body, tally)))
    was_killed = False
    while time.monotonic() < until:
        await asyncio.sleep(args.seconds / 12)
        sizes.append(memory_mb(process))
        if not was_killed and time.monotonic() > until - args.seconds / 2:
            was_killed = True
            process.send_signal(signal.SIGKILL)
            process.wait()
            process, _ = await asyncio.to_thread(start, folder, port)
    await asyncio.gather(*robots)
    return process, sizes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clients", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=60.0)
    args = parser.parse_args()
    tally = Tally()
    with tempfile.TemporaryDirectory() as folder:
        tiny_sarm().save_pretrained(folder)
        process, port = start(Path(folder), 0)
        process, sizes = asyncio.run(load(port, args, Path(folder), process, tally))
        time.sleep(1)
        print(f"{args.clients} clients, {args.seconds:g} s, on {os.cpu_count()} cores, server and clients together")
        for name, count in sorted(tally.answers.items(), key=lambda row: -row[1]):
            print(f"  {count:8d}  {name}")
        p50, p99 = np.percentile(tally.times, [50, 99]) * 1000
        print(f"  largest difference from the offline curve {tally.largest_difference:.1e}; a step p50 {p50:.0f} ms, p99 {p99:.0f} ms")
        print(f"  memory of the server in MB, every {args.seconds / 12:g} s: {' '.join(f'{size:.0f}' for size in sizes)}")
        process.send_signal(signal.SIGINT)
        process.wait(30)


if __name__ == "__main__":
    main()
