"""Does LeRobot's SARM read the annotations we write, and nothing else? Two runs, ours first, then with LeRobot 0.6.1's interpreter.

    PYTHONPATH=src python benchmarks/lerobot_annotations.py make FOLDER
    HF_HUB_OFFLINE=1 lerobot-python benchmarks/lerobot_annotations.py check FOLDER

`make` annotates copies of tests/data/dataset_v3 (two meta files, one episode left out): `plain`, `noted` (meta files with the notes of
Hugging Face `datasets`, as LeRobot's converter leaves them), `dense` (the dense head alone), `frames` (per-frame subtasks as well).
`check` lets LeRobot open each and load its proportions and annotations with the code that its training uses, compares them with what was
written, compares the training target of every frame with the segments, and exits 1 if anything differs.
"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

SOURCE = Path(__file__).parents[1] / "tests/data/dataset_v3"
NAMES = {"sparse": ("reach, then hold", "move", "finish"), "dense": ("approach", "align", "grasp", "move", "release")}
KINDS = {"plain": ("sparse", "dense"), "noted": ("sparse", "dense"), "dense": ("dense",), "frames": ("sparse", "dense")}
LEFT_OUT = 3
failures: list[str] = []


def say(what: str, ok: bool, detail: object) -> None:
    print(f"{'ok  ' if ok else 'FAIL'} {what}: {detail}")
    if not ok:
        failures.append(what)


def make(folder: Path) -> int:
    from milepost.annotation.spreadsheet import to_file
    from milepost.core.types import Segment
    from milepost.datasets.annotations import write_annotations
    from milepost.datasets.reader import open_dataset
    from milepost.datasets.subtask_index import write_subtask_index

    rng = np.random.default_rng(1)
    for kind, heads in KINDS.items():
        root = folder / kind
        shutil.copytree(SOURCE, root)
        if kind == "noted":
            note_features(root)
        annotations = {}
        for episode in open_dataset(root):
            if episode.index == LEFT_OUT:
                continue
            annotations[episode.index] = {}
            for head in heads:
                names = NAMES[head]
                inner = sorted(rng.choice(np.arange(1, episode.length), len(names) - 1, replace=False).tolist())
                edges = [0, *inner, episode.length]
                parts = [Segment(name, a, b) for name, a, b in zip(names, edges, edges[1:], strict=False)]
                annotations[episode.index][head] = tuple(parts)
        before = open_dataset(root).fingerprint
        written = write_annotations(root, annotations, names={head: NAMES[head] for head in heads})
        to_file(folder / f"{kind}.json", annotations, open_dataset(root).fps)
        (folder / f"{kind}.shares").write_text(json.dumps({head: stages.shares for head, stages in written.stages.items()}))
        dataset = open_dataset(root)
        read = {episode.index: dict(episode.segments) for episode in dataset if episode.segments}
        say(f"{kind}: open_dataset reads it back", read == annotations and dataset.fingerprint == before, f"{len(read)} episodes")
        if kind == "frames":
            write_subtask_index(root, annotations)
    return 1 if failures else 0


def note_features(root: Path) -> None:
    """The columns as `datasets` describes them in the files it writes."""
    kinds = {"int64": "int64", "double": "float64", "string": "string", "float": "float32", "bool": "bool"}

    def described(kind: object) -> dict:
        text = str(kind)
        if text.startswith("list<"):
            return {"feature": described(kind.value_type), "_type": "List"}
        return {"dtype": kinds[text], "_type": "Value"}

    for path in (root / "meta/episodes").glob("*/*.parquet"):
        table = pq.read_table(path)
        features = {field.name: described(field.type) for field in table.schema}
        pq.write_table(table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})}), path)


def check(folder: Path) -> int:
    from lerobot.datasets.lerobot_dataset import LeRobotDataset
    from lerobot.rewards.sarm.configuration_sarm import SARMConfig

    for kind, heads in KINDS.items():
        dataset = LeRobotDataset(f"local/{kind}", root=folder / kind)
        expected: dict[tuple[int, str], list[tuple]] = {}
        for row in json.loads((folder / f"{kind}.json").read_text()):
            expected.setdefault((row["episode"], row["head"]), []).append((row["name"], row["start_frame"], row["stop_frame"]))
        mode = "dense_only" if heads == ("dense",) else "dual"
        config = SARMConfig(annotation_mode=mode, image_key="observation.images.top", device="cpu", frame_gap=1)
        check_head(kind, dataset, config, heads, expected=expected, shares=json.loads((folder / f"{kind}.shares").read_text()))
        item = dataset[0]
        say(f"{kind}: an item", len(dataset) == 744 and item["observation.state"].shape == (7,), f"{len(dataset)} frames")
        if kind == "frames":
            check_frames(dataset, expected)
    print("all agree" if not failures else f"{len(failures)} differences: {', '.join(failures)}")
    return 1 if failures else 0


def check_head(kind: str, dataset: object, config: object, heads: tuple, *, expected: dict, shares: dict) -> None:
    """LeRobot's own methods on bare objects: their constructors would download CLIP, and these methods use nothing of it."""
    import torch
    from lerobot.rewards.sarm.modeling_sarm import SARMRewardModel
    from lerobot.rewards.sarm.processor_sarm import SARMEncodingProcessorStep

    model = SARMRewardModel.__new__(SARMRewardModel)
    torch.nn.Module.__init__(model)
    model.config = config
    model._load_temporal_proportions(dataset.meta)
    step = SARMEncodingProcessorStep.__new__(SARMEncodingProcessorStep)
    step.config, step.dataset_meta, step.annotation_mode = config, dataset.meta, config.annotation_mode
    for head in ("sparse", "dense"):
        names, found = getattr(config, f"{head}_subtask_names"), getattr(config, f"{head}_temporal_proportions")
        setattr(step, f"{head}_subtask_names", names)
        setattr(step, f"{head}_temporal_proportions", dict(zip(names, found, strict=True)))
        told = (list(NAMES[head]), shares[head]) if head in heads else (["task"], [1.0])
        say(
            f"{kind}, {head}: names and proportions",
            names == told[0] and np.allclose(found, told[1], atol=1e-12),
            dict(zip(names, found, strict=True)),
        )
    step._validate_annotation_columns()
    frame = dataset.meta.episodes.to_pandas()
    for head in heads:
        wrong = targets_off = 0
        for number in range(len(frame)):
            lists = step._load_episode_annotations(number, frame, head, getattr(config, f"{head}_subtask_names"))
            read = None if lists[0] is None else [(str(n), int(a), int(b)) for n, a, b in zip(*lists, strict=True)]
            wrong += read != expected.get((number, head))
            targets_off += wrong_targets(step, dataset, number, head, frame=frame, parts=read)
        say(f"{kind}, {head}: annotations of {len(frame)} episodes", wrong == 0, f"{wrong} differ")
        say(f"{kind}, {head}: training targets of every frame", targets_off == 0, f"{targets_off} of {len(dataset)} in another stage")


def wrong_targets(step: object, dataset: object, number: int, head: str, *, frame: object, parts: list | None) -> int:
    """Frames whose training target lies outside [k, k + 1] of the stage k that was written; 0 everywhere without annotation."""
    import torch

    row = frame.iloc[number]
    rows = np.arange(row["dataset_from_index"], row["dataset_to_index"])
    none = torch.zeros(len(rows), dtype=torch.int32)
    got = step._compute_batch_targets(rows, np.full(len(rows), number), none + 9, none, frame, head)[:, 4].numpy()
    low = np.zeros(len(rows))
    for name, start, stop in parts or []:
        low[start:stop] = NAMES[head].index(name)
    high = low + (0 if parts is None else 1)
    return int(np.sum((got < low - 1e-4) | (got > high + 1e-4)))


def check_frames(dataset: object, expected: dict) -> None:
    words = pq.read_table(dataset.root / "meta/subtasks.parquet").to_pandas()
    say("frames: the words are the table's index", list(words.index) == list(NAMES["sparse"]), list(words.index))
    starts = dataset.meta.episodes["dataset_from_index"]
    bad = count = 0
    for number, start in enumerate(starts):
        for name, first, stop in expected.get((number, "sparse"), [(None, 0, dataset.meta.episodes["length"][number])]):
            for row in (start + first, start + stop - 1):
                index = int(dataset[row]["subtask_index"])
                bad += index != -1 if name is None else words.iloc[index].name != name
                count += 1
    say(f"frames: subtask_index of {count} items", bad == 0, f"{bad} differ")


if __name__ == "__main__":
    sys.exit({"make": make, "check": check}[sys.argv[1]](Path(sys.argv[2])))
