"""LeRobot's own language columns, written and read by LeRobot 0.6.1: makes `tests/data/dataset_v3_language`. With LeRobot's interpreter:

    HF_HUB_OFFLINE=1 lerobot-python benchmarks/lerobot_language.py write
    HF_HUB_OFFLINE=1 lerobot-python benchmarks/lerobot_language.py read DATASET

`write`: LeRobot's writer puts rows of five styles into `tests/data/dataset_v3`, as `lerobot-annotate` does after its model has answered;
what its resolver finds for every frame is stored beside them. `read`: LeRobotDataset opens a copy made by `milepost annotate
--to-language`, and its resolver's subtask of every frame is compared with the annotation in meta/. It exits with 1 if a frame differs.
"""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from itertools import pairwise
from pathlib import Path

DATA = Path(__file__).resolve().parents[1] / "tests" / "data"
EMPTY = 3
"""An episode that LeRobot has nothing to say of."""


def subtasks(root: Path) -> dict[int, list[str | None]]:
    """Returns episode -> the subtask that LeRobot's resolver has for each frame, None where there is none."""
    from lerobot.datasets.language_render import active_at
    from lerobot.datasets.lerobot_dataset import LeRobotDataset

    dataset, names = LeRobotDataset("local/dataset", root=root), {}
    print(f"opened: {len(dataset)} frames, language columns: {dataset.meta.has_language_columns}, item: {sorted(dataset[0])}")
    for item in dataset.hf_dataset:
        row = active_at(float(item["timestamp"]), persistent=item["language_persistent"] or [], style="subtask")
        names.setdefault(int(item["episode_index"]), []).append(row["content"] or None if row else None)
    return names


def write() -> int:
    """Writes the test data."""
    from lerobot.annotations.steerable_pipeline.executor import Executor
    from lerobot.annotations.steerable_pipeline.reader import iter_episodes, snap_to_frame
    from lerobot.annotations.steerable_pipeline.staging import EpisodeStaging
    from lerobot.annotations.steerable_pipeline.writer import LanguageColumnsWriter, speech_atom

    with tempfile.TemporaryDirectory() as home:
        root, staging = Path(shutil.copytree(DATA / "dataset_v3", Path(home) / "dataset")), Path(home) / "staging"
        records = list(iter_episodes(root))
        for record in records:
            times, answers = record.frame_timestamps, EpisodeStaging(staging, record.episode_index)
            rest = {"camera": None, "tool_calls": None}
            starts = [snap_to_frame(place * times[-1] / 3 + 0.01, times) for place in range(3)]
            texts = ("reach the drawer", "grasp the handle", "pull it open")
            plan = [
                {"role": "assistant", "style": "subtask", "content": text, "timestamp": t, **rest}
                for text, t in zip(texts, starts, strict=True)
            ]
            plan += [
                {"role": "assistant", "style": "plan", "content": "1. reach\n2. pull", "timestamp": times[0], **rest},
                {"role": "assistant", "style": "memory", "content": "reached it", "timestamp": starts[1], **rest},
                {"role": "user", "style": "task_aug", "content": "open it, please", "timestamp": times[0], **rest},
            ]
            events = [
                speech_atom(times[0], "I go"),
                {"role": "user", "style": "interjection", "content": "wait", "timestamp": times[4], **rest},
            ]
            answers.write("plan", [] if record.episode_index == EMPTY else plan)
            answers.write("interjections", [] if record.episode_index == EMPTY else events)
        LanguageColumnsWriter().write_all(records, staging, root)
        Executor._ensure_annotation_metadata_in_info(root)
        out = DATA / "dataset_v3_language"
        shutil.rmtree(out, ignore_errors=True)
        shutil.copytree(root / "data", out / "data")
        (out / "meta").mkdir()
        shutil.copy(root / "meta" / "info.json", out / "meta")
        (out / "subtasks.json").write_text(json.dumps(subtasks(root)) + "\n")
    return 0


def read(root: Path) -> int:
    """Compares what LeRobot reads with the annotation in meta/."""
    import pyarrow.parquet as pq

    wrong = 0
    entries = [entry for path in sorted((root / "meta/episodes").rglob("*.parquet")) for entry in pq.read_table(path).to_pylist()]
    by_episode = subtasks(root)
    for entry in entries:
        expected: list[str | None] = [None] * entry["length"]
        head = "dense_" if entry.get("dense_subtask_names") else "sparse_"
        cells = zip(*(entry.get(f"{head}subtask_{field}") or [] for field in ("names", "start_frames", "end_frames")), strict=True)
        for name, start, stop in cells:
            expected[start:stop] = [name] * (stop - start)
        names = by_episode[entry["episode_index"]]
        wrong += sum(a != b for a, b in zip(names, expected, strict=True))
        print(f"episode {entry['episode_index']}: {sum(a != b for a, b in pairwise(names)) + 1} runs of a subtask in {len(names)} frames")
    print(f"frames whose subtask differs: {wrong}")
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(write() if sys.argv[1] == "write" else read(Path(sys.argv[2])))
