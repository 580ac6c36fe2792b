"""Shows the plugin at work in LeRobot: `make lerobot`, or, with an interpreter that has LeRobot, milepost and the plugin,

    python plugins/lerobot/checks/run.py [WORD]

Every check prints a line: what, and the result. WORD: only the checks whose names have it. The exit code is 1 if one failed. No network and
no GPU: the models are tiny and random, under the ids of the published ones.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[2]
SOURCE = ROOT / "tests" / "data" / "dataset_v3"
SMALL = "--policy.chunk_size={chunk} --policy.n_action_steps={chunk} --policy.device=cpu --policy.push_to_hub=false"
POLICIES = {
    "smolvla": "--policy.type=smolvla --policy.num_vlm_layers=2 --policy.resize_imgs_with_padding=[64,64] " + SMALL.format(chunk=10),
    "act": "--policy.type=act --policy.dim_model=32 --policy.n_heads=4 --policy.dim_feedforward=32 --policy.n_encoder_layers=1 "
    "--policy.use_vae=false --policy.dropout=0 --policy.pretrained_backbone_weights=null " + SMALL.format(chunk=1),
}
SARM = (
    "--reward_model.type=milepost_sarm --reward_model.encoder=pixels --reward_model.image_dim=16 --reward_model.text_dim=16 "
    "--reward_model.hidden_dim=32 --reward_model.num_layers=1 --reward_model.num_heads=4 --reward_model.dropout=0 --reward_model.device=cpu"
)
LOOP = "--num_workers=0 --env_eval_freq=0 --log_freq=1 --wandb.enable=false --seed=7 --dataset.repo_id=local/d --dataset.video_backend=pyav"
WEIGHTS = "--sample_weighting.type=milepost"
FRAMES = {True: "of the same frames", False: "of OTHER FRAMES"}


@dataclass
class Place:
    """The working folder: the dataset, the weights, and what the runs write. runs: how many there were."""

    folder: Path
    runs: int = 0

    @property
    def dataset(self) -> Path:
        return self.folder / "dataset"

    @property
    def weights(self) -> Path:
        return self.folder / "weights.parquet"

    def options(self, *words: str, save: bool = False) -> list[str]:
        """Returns the words of a lerobot-train command with an output folder of its own."""
        self.runs += 1
        saving = "" if save else " --save_checkpoint=false"
        output = f"--output_dir={self.folder / f'run{self.runs}'}"
        line = " ".join([LOOP, f"--dataset.root={self.dataset}", *words, output + saving])
        return line.split()

    def output(self) -> Path:
        """Returns the output folder of the latest run."""
        return self.folder / f"run{self.runs}"

    def train(self, options: list[str], *, processes: int = 1) -> tuple[list[list[dict]], Path]:
        """Returns what each process did, step by step, and where the weights at the start are. RuntimeError with the last words of a run
        that failed.
        """
        record = self.folder / f"record{self.runs}"
        # --multi_gpu is accelerate's word for torch.distributed; on CPUs LeRobot's --policy.device=cpu makes it gloo
        launcher = ["-m", "accelerate.commands.launch", "--multi_gpu", f"--num_processes={processes}", "--num_machines=1"]
        launcher += ["--mixed_precision=no", "--dynamo_backend=no", f"--main_process_port={free_port()}"]
        words = [sys.executable, *(launcher if processes > 1 else []), str(HERE / "record.py"), str(record), *options]
        done = subprocess.run(words, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(last_words(done.stderr))
        return [json.loads(Path(f"{record}.{rank}.json").read_text()) for rank in range(processes)], Path(f"{record}.safetensors")


def free_port() -> int:
    """Returns a port that nobody uses."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port: int = one.getsockname()[1]
        return port


def last_words(text: str) -> str:
    """Returns the message of the error that ended a process."""
    messages = re.findall(r"^(?:[\w.]+(?:Error|Exception)|lerobot-train: error): .*$", text, re.M)
    return messages[-1] if messages else text[-500:]


def apart(one: list[float], other: list[float]) -> float:
    """Returns the largest difference of two lists of losses, as a proportion."""
    return float(np.max(np.abs(np.subtract(one, other)) / np.maximum(np.abs(one), 1e-9)))


def whole(records: list[list[dict]]) -> tuple[list[float], list[list[int]]]:
    """Returns the loss and the rows of the whole batch of all processes, by step."""
    losses = [float(np.mean([each["loss"] for each in step])) for step in zip(*records, strict=True)]
    return losses, [[row for each in step for row in each["index"]] for step in zip(*records, strict=True)]


def require(condition: bool, words: str) -> str:
    """Returns the words of a result. RuntimeError with them if it is not what it should be."""
    if not condition:
        raise RuntimeError(words)
    return words


# What is shown


def discovery(place: Place) -> str:
    code = (
        "from lerobot.utils.import_utils import register_third_party_plugins as look; look()\n"
        "from lerobot.configs.parser import load_plugin; load_plugin('lerobot_policy_milepost')\n"
        "from lerobot.configs.rewards import RewardModelConfig as C; print(*sorted(C.get_known_choices()))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return require("milepost_sarm milepost_topreward" in done.stdout, f"by name and by path: {done.stdout.strip()}")


def sarm_trained(place: Place) -> str:
    """Trains 20 steps, loads the model with LeRobot and with milepost, and goes on from the checkpoint in the middle."""
    options = place.options(SARM, "--steps=20 --batch_size=8 --save_freq=10", save=True)
    (steps,), _ = place.train(options)
    checkpoints = place.output() / "checkpoints"
    off = scores_apart(checkpoints / "last" / "pretrained_model", place.dataset)
    config = checkpoints / "000010" / "pretrained_model" / "train_config.json"
    place.runs += 1
    (resumed,), _ = place.train([f"--config_path={config}", "--resume=true"])
    again = apart([each["loss"] for each in steps[10:]], [each["loss"] for each in resumed])
    words = (
        f"loss {steps[0]['loss']:.3f} to {steps[-1]['loss']:.3f}; LeRobot's and milepost's numbers {off:.1e} apart; resumed, {again:.1e}"
    )
    return require(off < 1e-6 and again < 1e-6 and len(resumed) == 10, words)


def scores_apart(folder: Path, root: Path) -> float:
    """Returns how far the numbers of the saved model are apart, loaded by LeRobot and by milepost."""
    from lerobot.configs.rewards import RewardModelConfig
    from lerobot.datasets import LeRobotDataset
    from lerobot.processor import PolicyProcessorPipeline
    from lerobot.rewards.factory import make_reward_model, make_reward_pre_post_processors
    from torch.utils.data import default_collate

    import milepost

    config = RewardModelConfig.from_pretrained(folder, cli_overrides=[f"--pretrained_path={folder}"])
    model, (before, _) = make_reward_model(config), make_reward_pre_post_processors(config)
    saved = PolicyProcessorPipeline.from_pretrained(folder, config_filename="policy_preprocessor.json")
    dataset = milepost.open_dataset(root)
    episode, ours = dataset[1], milepost.load_model(folder).predict(dataset[1]).value
    offsets = [index / dataset.fps for index in config.window_indices(dataset.fps)]
    keys = dict.fromkeys([*config.sarm.cameras, config.state_key], offsets)
    items = LeRobotDataset("local/d", root=root, delta_timestamps=keys, video_backend="pyav", return_uint8=True)
    frames = np.array([0, 3, 17, 30, episode.length - 1])
    batch = default_collate([items[int(episode.row + frame)] for frame in frames])
    theirs = [model.compute_reward(pipeline(dict(batch))).numpy() for pipeline in (before, saved)]
    return float(max(np.abs(each - ours[frames]).max() for each in theirs))


def sarm_with_clip(place: Place) -> str:
    words = "--reward_model.type=milepost_sarm --reward_model.hidden_dim=32 --reward_model.num_layers=1 --reward_model.num_heads=4"
    (steps,), _ = place.train(place.options(words, "--reward_model.device=cpu --steps=2 --batch_size=4"))
    return require(all(np.isfinite(each["loss"]) for each in steps), f"2 steps, losses {[round(each['loss'], 3) for each in steps]}")


def topreward(place: Place) -> str:
    """Scores a clip by LeRobot's factory and by milepost, and saves and loads the model with both."""
    import torch
    from lerobot.rewards.factory import make_reward_model, make_reward_model_config, make_reward_pre_post_processors

    import milepost

    config = make_reward_model_config("milepost_topreward", device="cpu", image_key="observation.images.top")
    model, (before, _) = make_reward_model(config), make_reward_pre_post_processors(config)
    clip = torch.randint(0, 255, (1, 6, 3, 64, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    batch = {"observation.images.top": clip, "task": ["open the drawer"]}
    model.save_pretrained(place.folder / "topreward")
    ours = milepost.load_model(place.folder / "topreward")
    prepare, _ = milepost.make_reward_pre_post_processors(ours.config)
    scores = [model.compute_reward(before(dict(batch))).item(), ours.compute_reward(prepare(dict(batch))).item()]
    try:
        place.train(place.options("--reward_model.type=milepost_topreward --reward_model.device=cpu --steps=1"))
    except RuntimeError as error:
        return require(
            scores[0] == scores[1] and "zero-shot" in str(error), f"log P {scores[0]:.4f} by both; training is refused: zero-shot"
        )
    raise RuntimeError("a zero-shot model was trained")


def hil(place: Place) -> str:
    from hil import reward_step

    return require(*reward_step(place.folder))


def weighted(name: str, by: str) -> Callable[[Place], str]:
    """Returns the check that a policy's losses are a plain loop's."""

    def check(place: Place) -> str:
        from milepost import SampleWeights
        from plain import plain_losses

        words = f"{POLICIES[name]} --steps=5 --batch_size=8"
        (steps,), start = place.train(place.options(words, WEIGHTS, f"--sample_weighting.progress_path={place.weights}"))
        losses, rows = plain_losses(place.options(words), SampleWeights.load(place.weights), start, by=by)
        off = apart([each["loss"] for each in steps], losses)
        same = rows == [each["index"] for each in steps]
        return require(off < 1e-6 and same, f"by {by}: 5 losses {off:.1e} from a plain loop's, {FRAMES[same]}")

    return check


def two_processes(words: str) -> Callable[[Place], str]:
    """Returns the check that two processes are one with twice the batch."""

    def check(place: Place) -> str:
        one, _ = place.train(place.options(words, "--steps=5 --batch_size=8"))
        two, _ = place.train(place.options(words, "--steps=5 --batch_size=4"), processes=2)
        (losses, rows), (both, both_rows) = whole(one), whole(two)
        off, same = apart(losses, both), rows == both_rows
        return require(
            off < 1e-5 and same,
            f"5 losses {off:.1e} from one process with twice the batch, {FRAMES[same]}",
        )

    return check


def refused(words: str, message: str) -> Callable[[Place], str]:
    """Returns the check that a command ends with a sentence that has these words."""

    def check(place: Place) -> str:
        try:
            place.train(place.options(words.format(folder=place.folder), "--steps=1 --batch_size=2"))
        except RuntimeError as error:
            return require(message in str(error), str(error))
        raise RuntimeError("it was not refused")

    return check


ACT, SMOLVLA = POLICIES["act"], POLICIES["smolvla"]
NAMED = f"{WEIGHTS} --sample_weighting.progress_path={{folder}}/"
CHECKS: dict[str, Callable[[Place], str]] = {
    "the plugin is found": discovery,
    "milepost_sarm: 20 steps, saved, loaded by both, resumed": sarm_trained,
    "milepost_sarm with its default encoder": sarm_with_clip,
    "milepost_topreward": topreward,
    "milepost_reward_processor in HIL-SERL's loop": hil,
    "SmolVLA with weights": weighted("smolvla", "loss"),
    "ACT with weights": weighted("act", "sampler"),
    "two processes, milepost_sarm": two_processes(SARM),
    "two processes, SmolVLA with weights": two_processes(f"{SMOLVLA} {WEIGHTS}"),
    "two processes, ACT with weights": two_processes(f"{ACT} {WEIGHTS}"),
    "refused: weights of another dataset": refused(f"{ACT} {NAMED}other.parquet", "was made for another dataset"),
    "refused: weights of another number of frames": refused(f"{ACT} {NAMED}short.parquet", "of the 744 frames"),
    "refused: a progress file in place of weights": refused(f"{ACT} {NAMED}progress.parquet", "is no weights file"),
    "refused: no weights file": refused(f"{ACT} {NAMED}none.parquet", "there is no weights file"),
    "refused: loss weights for ACT": refused(
        f'{ACT} {WEIGHTS} --sample_weighting.extra_params={{{{"by":"loss"}}}}', "gives no loss for each sample"
    ),
    "refused: kappa beside made weights": refused(f"{ACT} {WEIGHTS} --sample_weighting.kappa=0.5", "give it to milepost weigh"),
    "refused: an unknown policy": refused(f"--policy.type=nonsense {WEIGHTS}", "nonsense"),
}


def set_up(folder: Path) -> Place:
    """Writes the stub models, the dataset, its weights, and weights that do not fit it."""
    import pyarrow as pa
    import pyarrow.parquet as pq
    from lerobot.utils.import_utils import register_third_party_plugins

    from milepost import RabcConfig, SampleWeights, open_dataset, weigh
    from stubs import make_cache

    register_third_party_plugins()
    make_cache(folder / "hf")
    place = Place(folder)
    shutil.copytree(SOURCE, place.dataset)
    table = pa.concat_tables([pq.read_table(path) for path in sorted(place.dataset.glob("data/*/*.parquet"))])
    index, episode, frame = (table[name].to_numpy() for name in ("index", "episode_index", "frame_index"))
    curve = np.clip(frame / 150 + np.random.default_rng(0).normal(0, 0.1, len(frame)), 0, 1).astype(np.float32)
    config, dataset = RabcConfig(chunk_size=10, kappa=0.2), open_dataset(place.dataset)
    weights = SampleWeights.of(weigh(index, episode, curve, config=config))
    own = {"dataset": dataset.name, "dataset_fingerprint": dataset.fingerprint}
    for path in (place.weights, place.dataset / "weights.parquet"):
        weights.save(path, config, own)
    weights.save(folder / "other.parquet", config, {"dataset": "other", "dataset_fingerprint": "0123456789abcdef"})
    pq.write_table(pa.table({"index": index[:500], "weight": weights.weight[:500]}), folder / "short.parquet")
    columns = {"index": index, "episode_index": episode, "frame_index": frame, "progress_sparse": curve}
    pq.write_table(pa.table(columns), folder / "progress.parquet")
    return place


def main(word: str) -> int:
    """Runs the checks, and returns the exit code."""
    print(f"LeRobot {version('lerobot')}, torch {version('torch')}, transformers {version('transformers')}", flush=True)
    failures = 0
    with tempfile.TemporaryDirectory() as name:
        os.environ |= {"HF_HOME": f"{name}/hf", "HF_HUB_OFFLINE": "1", "MILEPOST_CACHE": f"{name}/features", "WANDB_MODE": "disabled"}
        place = set_up(Path(name))
        for what, check in CHECKS.items():
            if word not in what:
                continue
            try:
                print(f"{what}: {check(place)}".replace(name, "FOLDER"), flush=True)
            except (RuntimeError, AssertionError, ValueError, TypeError, KeyError, OSError, subprocess.CalledProcessError) as error:
                failures += 1
                print(f"FAILED {what}: {error}".replace(name, "FOLDER"), flush=True)
    print("all is as it should be" if not failures else f"{failures} failed")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.path.insert(0, str(HERE))
    sys.exit(main(" ".join(sys.argv[1:])))
