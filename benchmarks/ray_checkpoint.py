"""Ray Data's own checkpoints beside milepost's unfinished file: the same episodes, model and kills.

    python benchmarks/ray_checkpoint.py [--episodes 200] [--kills 8] [--seed 0]

Ray Data's `CheckpointConfig` keeps the ids of finished rows beside a `write_parquet`, and leaves them out when the same job runs again. The
driver and the cluster are killed at random moments, as by `ray_kills.py`, and what was begun again is counted. Then each way labels once
without kills, in turn, and the seconds are compared. It also asks Ray what happens with the shape that `--ray` has: rows in memory, and
answers that come back to the driver.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from milepost.testing import dot_episodes, write_dots
from ray_kills import SLEEP_S, Kill, Run, count
from ray_world import end, environment, install, notes

SHARE = 4
JOB = """
import sys
import warnings
from pathlib import Path

import numpy as np
import ray
from ray.data.checkpoint import CheckpointConfig

from milepost import open_dataset
from milepost.models import load_model
from milepost.progress import progress_rows

folder, address, shape = Path(sys.argv[1]), sys.argv[2], sys.argv[3]


class Label:
    def __init__(self):
        self.dataset, self.model = open_dataset(folder / "dots"), load_model("noted")

    def __call__(self, batch):
        tables = [progress_rows(self.model.predict(self.dataset[int(item)]), self.dataset[int(item)].row) for item in batch["item"]]
        return {"item": batch["item"], "rows": [table["progress_sparse"].to_numpy() for table in tables]}


ray.init(address=address, log_to_driver=False)
context = ray.data.DataContext.get_current()
if shape != "without":
    context.checkpoint_config = CheckpointConfig("item", str(folder / "checkpoint"), delete_checkpoint_on_success=False)
if shape == "back":
    source = ray.data.from_items([{"item": item} for item in range(4)])
else:
    source = ray.data.read_parquet(str(folder / "items"), override_num_blocks=int(sys.argv[4]))
rows = source.map_batches(Label, batch_size=4, compute=ray.data.ActorPoolStrategy(size=2), num_cpus=0.5)
if shape == "back":
    print(len(list(rows.iter_rows())), "rows came back")
else:
    rows.write_parquet(str(folder / "labels"))
"""


class CheckpointRun(Run):
    """The same episodes through a job of Ray Data with its checkpoints."""

    shape = "with"

    def go_on(self) -> None:
        """Starts the job again."""
        self.starts += 1
        self.begun_at = time.time()
        self.command = self.job(self.shape)

    def job(self, shape: str) -> subprocess.Popen:
        """Starts the job. shape: "with" and "without" checkpoints, or "back": rows come back to the driver."""
        blocks = str(len(list((self.folder / "items").iterdir())))
        with (self.folder / "words.txt").open("a") as text:
            line = [sys.executable, str(self.folder / "job.py"), str(self.folder), self.head.address, shape, blocks]
            return subprocess.Popen(line, env=self.variables, stdout=text, stderr=text)


def killed(run: Run, kinds: list[str], episodes: int) -> dict:
    """Makes the kills and returns what they came to."""
    kills = list[Kill]()
    run.go_on()
    for kind in kinds:
        if not run.moment(kind):
            break
        kills.append(run.kill(kind, 0))
        print(f"{type(run).__name__}: {len(kills)} of {len(kinds)}, {kind}", flush=True)
    run.wait_until_ended()
    all_notes = notes(run.folder / "log")
    count(kills, all_notes)
    begun = [each.episode for each in all_notes if each.word == "begin"]
    return {
        "kills": len(kills),
        "begun again": sum(each.again for each in kills),
        "finished before, and again": sum(each.again - each.unfinished for each in kills),
        "most a kill": max((each.again for each in kills), default=0),
        "never begun": episodes - len(set(begun)),
        **written(run, episodes),
    }


def written(run: Run, episodes: int) -> dict:
    """Returns which episodes are in the output, and how often."""
    if isinstance(run, CheckpointRun):
        items = [
            item
            for path in (run.folder / "labels").rglob("*.parquet")
            for item in pq.read_table(path, columns=["item"])["item"].to_pylist()
        ]
    else:
        items = list(dict.fromkeys(pq.read_table(run.folder / "killed.parquet")["episode_index"].to_pylist()))
    return {"lost": episodes - len(set(items)), "twice": len(items) - len(set(items)), "codes": run.codes}


def timed(run: Run, command: subprocess.Popen) -> dict:
    """Returns how long a job took, and the time from the first episode's beginning to its end."""
    begun, before = time.monotonic(), time.time()
    if command.wait() != 0:
        raise RuntimeError((run.folder / "words.txt").read_text()[-3000:])
    took, ended = time.monotonic() - begun, time.time()
    first = min(each.time for each in notes(run.folder / "log") if each.time > before)
    return {"seconds": round(took, 1), "from the first episode": round(ended - first, 1)}


def clear(folder: Path) -> None:
    """Removes what the job before has left."""
    for name in ("labels", "checkpoint"):
        for path in sorted((folder / name).rglob("*"), reverse=True):
            path.unlink() if path.is_file() else path.rmdir()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--kills", type=int, default=8)
    parser.add_argument("--episodes", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--rounds", type=int, default=2)
    args = parser.parse_args()
    kinds = [("process", "command", "cluster", "command")[place % 4] for place in range(args.kills)]
    with tempfile.TemporaryDirectory(prefix="rc") as name:
        folder = Path(name)
        (folder / "ray").mkdir()
        install(folder / "site")
        write_dots(folder / "dots", dot_episodes(args.episodes, seed=args.seed))
        (folder / "job.py").write_text(JOB)
        (folder / "items").mkdir()
        for start in range(0, args.episodes, SHARE):  # a file each, so that a block has as many rows as a share of `--ray`
            items = list(range(start, min(start + SHARE, args.episodes)))
            pq.write_table(pa.table({"item": items}), folder / "items" / f"{start:06d}.parquet")
        run: Run
        for kind_of_run in (Run, CheckpointRun):
            run = kind_of_run(folder, random.Random(args.seed))
            run.head.start()
            try:
                print(json.dumps({"way": kind_of_run.__name__, **killed(run, kinds, args.episodes)}), flush=True)
            except BaseException:
                print((folder / "words.txt").read_text()[-4000:], file=sys.stderr)
                raise
            finally:
                if run.command is not None:
                    end(run.command.pid)
                run.head.kill()
            (folder / "log").unlink(missing_ok=True)
        run = CheckpointRun(folder, random.Random(args.seed))
        run.variables = environment(folder, sleep_s=SLEEP_S)
        run.head.start()
        try:
            run.job("back").wait()
            words = (folder / "words.txt").read_text().splitlines()
            print([line.strip() for line in words if "heckpointing" in line or "came back" in line][-2:], flush=True)
            for _ in range(args.rounds):
                for shape in ("with", "without"):
                    clear(folder)
                    print(json.dumps({"way": f"Ray Data {shape} checkpoints", **timed(run, run.job(shape))}), flush=True)
                (folder / "killed.parquet").unlink(missing_ok=True)
                run_of_ours = run.label("killed.parquet", "--ray", run.head.address, "--actors", "2", "--cpus-per-actor", "0.5")
                print(json.dumps({"way": "milepost --ray", **timed(run, run_of_ours)}), flush=True)
        finally:
            run.head.kill()


if __name__ == "__main__":
    os.environ.pop("RAY_ADDRESS", None)
    main()
