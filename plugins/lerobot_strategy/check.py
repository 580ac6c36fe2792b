"""Runs the strategy in LeRobot's own `lerobot-rollout`, with a robot that is made up: its camera shows a dot that visits its places.

    python plugins/lerobot_strategy/check.py FOLDER

In an environment with LeRobot 0.6.1 (extra `dataset`), this package and plugins/lerobot. The policy is a random ACT. The robot moves the
dot by itself, and gives up in every second episode. The reward model is a small SARM that learns from 40 attempts (a minute on a CPU).
"""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from lerobot.robots import Robot, RobotConfig

from milepost.testing import dot_episodes, dot_image, write_dots

CAMERA, TASK, EPISODES = "top", "visit the places with dot 0", 4


@RobotConfig.register_subclass("milepost_dot")
@dataclass
class DotRobotConfig(RobotConfig):
    """A robot without any hardware."""


class DotRobot(Robot):
    """Plays recorded attempts: each action moves on by one frame; an attempt that has ended stands still."""

    config_class = DotRobotConfig
    name = "milepost_dot"
    plays: ClassVar[list[np.ndarray]] = [each.state for each in dot_episodes(EPISODES, seed=7)]

    def __init__(self, config: DotRobotConfig) -> None:
        super().__init__(config)
        self._is_connected, self._episode, self._frame = False, 0, 0
        self.cameras = {CAMERA: None}

    observation_features = property(lambda self: {"x.pos": float, "y.pos": float, CAMERA: (32, 32, 3)})
    action_features = property(lambda self: {"x.pos": float, "y.pos": float})
    is_connected = property(lambda self: self._is_connected)
    is_calibrated = property(lambda self: True)

    def connect(self, calibrate: bool = True) -> None:
        self._is_connected = True

    def disconnect(self) -> None:
        self._is_connected = False

    def calibrate(self) -> None:
        pass

    def configure(self) -> None:
        pass

    def next_attempt(self) -> None:
        self._episode, self._frame = self._episode + 1, 0

    def get_observation(self) -> dict[str, Any]:
        path = self.plays[self._episode % EPISODES]
        stop = len(path) - 1 if self._episode % 2 == 0 else len(path) // 3
        place = path[min(self._frame, stop)]
        return {"x.pos": float(place[0]), "y.pos": float(place[1]), CAMERA: dot_image(place, 0)}

    def send_action(self, action: dict[str, Any]) -> dict[str, Any]:
        self._frame += 1
        return action


def main() -> None:
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    if len(sys.argv) > 2:  # the second process, which is lerobot-rollout itself
        rollout(folder)
        return
    if not (folder / "sarm/model.safetensors").is_file():
        write_dots(folder / "dots", dot_episodes(40))
        command = ["milepost", "train", folder / "dots", "--annotation-mode", "sparse_only", "--image-key", f"observation.images.{CAMERA}"]
        command += ["--steps", "400", "--preset", "small", "--output-dir", folder / "sarm", "--holdout", "0"]
        subprocess.run([Path(sys.executable).parent / str(command[0]), *command[1:]], check=True)
    save_policy(folder / "act")
    subprocess.run([sys.executable, __file__, folder, "rollout"], check=True)
    report(folder)


def save_policy(folder: Path) -> None:
    """Writes a random ACT and its processors."""
    from lerobot.configs.types import FeatureType, PolicyFeature
    from lerobot.policies.act.configuration_act import ACTConfig
    from lerobot.policies.act.modeling_act import ACTPolicy
    from lerobot.policies.factory import make_pre_post_processors

    features = {
        "observation.state": PolicyFeature(FeatureType.STATE, (2,)),
        f"observation.images.{CAMERA}": PolicyFeature(FeatureType.VISUAL, (3, 32, 32)),
    }
    config = ACTConfig(
        input_features=features, output_features={"action": PolicyFeature(FeatureType.ACTION, (2,))}, device="cpu", push_to_hub=False,
        pretrained_backbone_weights=None, dim_model=32, n_heads=2, dim_feedforward=32, n_encoder_layers=1, n_vae_encoder_layers=1,
        chunk_size=8, n_action_steps=8, use_vae=False,
    )  # fmt: skip
    policy = ACTPolicy(config)
    policy.save_pretrained(folder)
    for each in make_pre_post_processors(config, dataset_stats=None):
        each.save_pretrained(folder)


def rollout(folder: Path) -> None:
    """Runs `lerobot-rollout`, with a new attempt of the robot in each reset."""
    from lerobot.rollout.strategies import EpisodicStrategy
    from lerobot.scripts import lerobot_rollout

    reset = EpisodicStrategy._reset_loop

    def reset_robot(self: Any, ctx: Any, robot: Any, **others: Any) -> None:
        ctx.hardware.robot_wrapper.inner.next_attempt()
        reset(self, ctx=ctx, robot=robot, **others)

    EpisodicStrategy._reset_loop = reset_robot
    sys.argv = [
        "lerobot-rollout", "--strategy.type=milepost", f"--strategy.model_path={folder / 'sarm'}", "--strategy.hold_s=0.3",
        "--robot.type=milepost_dot", f"--policy.path={folder / 'act'}", "--dataset.repo_id=milepost/rollout_dots",
        "--dataset.no_stamp=true", f"--dataset.root={folder / 'rollout'}", f"--dataset.single_task={TASK}",
        f"--dataset.num_episodes={EPISODES}", "--dataset.fps=10",
        "--fps=10", "--dataset.episode_time_s=20", "--dataset.reset_time_s=0.2", "--dataset.push_to_hub=false", "--play_sounds=false",
        "--device=cpu", "--return_to_initial_position=false", "--strategy.reset_to_initial_position=false",
    ]  # fmt: skip
    lerobot_rollout.main()


def report(folder: Path) -> None:
    """Prints what was recorded, episode by episode, and checks it against the offline curve of the same model."""
    import milepost

    dataset = milepost.open_dataset(folder / "rollout")
    model = milepost.load_model(folder / "sarm")
    features = json.loads((folder / "rollout/meta/info.json").read_text())["features"]
    assert features["progress"]["dtype"] == "float32"
    assert features["next.success"]["dtype"] == "bool"
    for episode in dataset:
        progress, success = (np.asarray(episode.columns[name]).reshape(-1) for name in ("progress", "next.success"))
        offline = model.predict(episode).main.value
        away = float(np.abs(offline - progress).max())
        gives_up = episode.index % 2 == 1
        print(f"episode {episode.index}: {episode.length} frames, {'gives up' if gives_up else 'succeeds'}; recorded success "
              f"{success[-1]}, progress {progress[-1]:.2f}, at most {away:.3f} from the curve of the film")  # fmt: skip
        assert bool(success[-1]) is not gives_up
        assert not success[:-1].any() or gives_up, "the episode ends at the first frame of success"


if __name__ == "__main__":
    main()
