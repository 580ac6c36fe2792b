"""TOPReward (arXiv 2602.19313): the log-probability that a VLM's next word is "True", after the video so far and

    The above video shows a robot manipulation trajectory that completes the following task: ... The answer is:

Nothing is trained. The VLM reads an episode once: all its prefixes are asked about over the same keys and values (`vlm/`). `progress` is
the score min-maxed over the episode, so a failure may reach 1 too; what tells them apart is `raw`, the score itself.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal, NoReturn

import numpy as np
import torch
from jaxtyping import Float, Shaped, UInt8
from torch import Tensor

from milepost.core import (
    Curve,
    DataError,
    Dataset,
    Episode,
    Progress,
    Signal,
    Step,
    Tick,
    UnreadableError,
    has_words,
    interpolate,
    read_json_object,
    require_cameras,
    require_tasks,
    shown,
    spread,
    warn_user,
    write_text,
)
from milepost.datasets import find_model, is_hub_id, revision_of, upload_model
from milepost.models.plugin_format import own_values
from milepost.models.topreward.config import TOPRewardConfig
from milepost.models.topreward.processor import clip_of, clips_and_tasks
from milepost.models.topreward.sampling import anchors, grid, looked_at, min_max
from milepost.vlm import (
    FINAL,
    SPECIAL_TOKEN,
    Clip,
    Engine,
    MalformedError,
    RefusedError,
    RemoteEngine,
    ServerConfig,
    Stream,
    UnreachableError,
    load_engine,
)

IN_A_ROW = 3
"""The run ends after a server failed on so many episodes in a row."""


class TOPRewardModel:
    """The config and, from its first question on, the VLM it names.

    engine: an open one, to share it between models; each asks in its own words.

    "dots" is what `milepost.testing.write_example("dots")` writes: six episodes and a progress file.

    >>> from milepost.testing import tiny_vlm
    >>> model = milepost.TOPRewardModel(milepost.TOPRewardConfig(vlm_name=str(tiny_vlm("vlm"))))
    >>> progress = model.predict(milepost.open_dataset("dots")[0])
    >>> sorted(progress.main.signals)
    ['logodds', 'logprob']
    """

    def __init__(self, config: TOPRewardConfig, engine: Engine | RemoteEngine | None = None) -> None:
        self.config = config
        self._engine = None if engine is None else engine.with_prompt(config.prompt)
        self._attempt: _Attempt | None = None
        self._unanswered = 0

    @property
    def engine(self) -> Engine | RemoteEngine:
        """Returns the VLM, loaded (or its server called) when it is first needed. DataError if it cannot be."""
        if self._engine is None:
            self._engine = open_engine(self.config)
        return self._engine

    @property
    def success_threshold(self) -> float:
        """Returns the score above which an attempt is a success; minus infinity if there is none."""
        return self.config.success_threshold

    def identity(self) -> dict[str, Any]:
        """Returns what its curves depend on: its config but for the threshold, which is no part of a curve."""
        return dataclasses.replace(self.config, success_threshold=-math.inf).to_dict()

    def run_settings(self, options: Mapping[str, Any]) -> dict[str, Any]:
        """Returns which VLM is asked, how often, and how. A server shows each frame as an image of its own, and does not say what it
        computes in.
        """
        engine, often = self.engine, {"num_prefixes": options.get("num_prefixes")}
        if isinstance(engine, RemoteEngine):
            return {**often, "vlm": engine.name, "base_url": engine.config.base_url, "frames_as": "images"}
        about = {"vlm": engine.name, "vlm_commit": engine.commit, "vlm_weights": engine.fingerprint}
        return {**often, **about, "frames_as": "video", "precision": engine.precision}

    def prepare_for(self, dataset: Dataset, *, cache: Path | None = None, on_frames: Tick | None = None) -> None:
        """Makes the model ready for a dataset: it has its camera, or a single one, which is taken; tasks in words; and the VLM is loaded.

        Warns, before hours of work, of episodes without a task. cache and on_frames: not used, nothing is kept. DataError if there is no
        such camera among several, no episode has a task, or the VLM cannot be had.
        """
        require_tasks(dataset, self.config.default_task)
        camera, there = self.config.image_key, dataset.cameras
        if camera not in there:
            if len(there) != 1:
                require_cameras([camera], there, hint="choose with --image-key")
            self.config = dataclasses.replace(self.config, image_key=there[0])
            warn_user(f"there is no camera '{camera}': looking at '{there[0]}', the only one")
        _ = self.engine

    def close(self) -> list[str]:
        """Closes the connections to a server, if there are any. Returns what it was asked and what it was like, a line each."""
        if not isinstance(self._engine, RemoteEngine):
            return []
        self._engine.close()
        return [f"server: {line}" for line in (self._engine.usage, *self._engine.notes)]

    # Scores

    def compute_reward(self, batch: Mapping[str, Any]) -> Float[Tensor, "B"]:
        """Returns log P(answer | clip, instruction) of each sample, in nats, or 1 and 0 where `success_threshold` is finite. NaN: not
        known.

        `batch`: `observation.topreward.frames`, B clips (T, H, W, 3), of which `max_frames` are looked at, and `.task`, B sentences.
        """
        scores = []
        for frames, task in clips_and_tasks(batch, self.config):
            most, count = self.config.max_frames, len(frames)
            indices = np.arange(count)
            if most is not None and count > most:
                last = self.config.protocol == "lerobot"
                indices = indices[-most:] if last else np.unique(np.linspace(0, count - 1, most).round().astype(int))
            times = (np.arange(len(indices)) if self.config.protocol == "lerobot" else indices) / self.config.fps
            logprob, bound = self._ask(frames[indices], times, [task], [len(indices)])
            scores.append((logprob[0, 0, 0], bound[0, 0, 0]))
        reward, most_likely = torch.tensor(np.array(scores, np.float32).reshape(-1, 2), device=self.config.device or "cpu").T
        threshold = self.config.success_threshold
        if not math.isfinite(threshold):
            return reward
        unknown = reward.isnan() & (most_likely > threshold)  # a bound below the threshold is an answer
        return torch.where(unknown, reward, (reward > threshold).float())

    def predict_curves(self, batch: Mapping[str, Any], num_prefixes: int | None = None) -> dict[str, list[Float[Tensor, "T"]]]:
        """Returns, for each clip of a batch, one number a frame: "progress" in [0, 1], "raw" and "logodds" (nats; NaN where not asked).

        num_prefixes: None asks after every frame; else after so many, first and last among them, and progress is drawn straight between.
        """
        curves = []
        for frames, task in clips_and_tasks(batch, self.config):
            at = np.arange(len(frames))
            curves += self._curves(frames, (at, at / self.config.fps), [task], (0, len(frames)), num_prefixes)
        arrays_by_name = {"progress": [curve.value for curve in curves]}
        for key, name in (("raw", "logprob"), ("logodds", "logodds")):
            arrays_by_name[key] = [curve.main.signals[name].values for curve in curves]
        return {key: [torch.from_numpy(each) for each in arrays] for key, arrays in arrays_by_name.items()}

    def look(self, episode: Episode) -> UInt8[np.ndarray, "N H W 3"]:
        """Returns the frames that `predict` takes; reading them needs no VLM. DataError if the camera is not there."""
        return episode.camera(self.config.image_key)[looked_at(episode.length, episode.fps, self.config)[0]]

    def predict(self, episode: Episode, *, num_prefixes: int | None = None, seen: UInt8[np.ndarray, "N H W 3"] | None = None) -> Progress:
        """Returns the curve of an episode: `value` min-maxed, signals "logprob", log P(answer), and "logodds", NaN where not asked.

        A server may not list an answer: then that is NaN as well, and the signal "logprob_bound" is what log P(answer) is at most.
        num_prefixes: as in `predict_curves`, of the frames looked at. seen: them, if `look` has read them already.
        DataError if the camera is missing or a server answers nothing; UnreadableError, which stops no other episode, if the task has no
        words or marks of the model in it, the episode is too long, or a server that answers others does not answer about it.
        """
        return self.predict_tasks(episode, [self.instruction_of(episode)], num_prefixes=num_prefixes, seen=seen)[0]

    def instruction_of(self, episode: Episode) -> str:
        """Returns the instruction that the VLM is given: the episode's task, or `default_task`.

        UnreadableError if it has no words, or marks of the model in it.
        """
        task = episode.task.strip() if has_words(episode.task) else self.config.default_task or ""
        if not has_words(task):
            raise UnreadableError(f"episode {episode.index} has no task in words; give one for such episodes: --task, or default_task")
        if mark := SPECIAL_TOKEN.search(task):
            raise UnreadableError(f"episode {episode.index}: its task holds {mark[0]}, which models read as a mark and not as words")
        return task

    def predict_tasks(
        self, episode: Episode, tasks: Sequence[str], *, num_prefixes: int | None = None, seen: UInt8[np.ndarray, "N H W 3"] | None = None
    ) -> list[Progress]:
        """Returns the curve of an episode under each of several instructions; the VLM reads it once."""
        places = looked_at(episode.length, episode.fps, self.config)
        images = self.look(episode) if seen is None else seen
        try:
            curves = self._curves(images, places, tasks, (episode.index, episode.length), num_prefixes)
        except DataError as error:
            stops_others = not isinstance(error, UnreadableError) and not self._is_of_this_episode(error)
            kind = DataError if stops_others else UnreadableError
            raise kind(f"episode {episode.index}: {error}") from error
        self._unanswered = 0
        return curves

    def _is_of_this_episode(self, error: DataError) -> bool:
        """Returns whether a server may answer about another episode: it has not failed too often in a row, and did not refuse all requests
        alike.
        """
        if not isinstance(error, RefusedError | UnreachableError | MalformedError):
            return False
        self._unanswered += 1
        if isinstance(error, RefusedError) and error.status in FINAL:
            return False
        answers = self.engine.usage.answers if isinstance(self.engine, RemoteEngine) else 0
        return self._unanswered < IN_A_ROW and (answers > 0 or isinstance(error, RefusedError))

    def _curves(
        self,
        images: UInt8[np.ndarray, "N H W 3"],
        places: tuple[Shaped[np.ndarray, "N"], Float[np.ndarray, "N"]],
        tasks: Sequence[str],
        episode: tuple[int, int],
        num_prefixes: int | None,
    ) -> list[Progress]:
        """Returns a curve for each task. places: (frames, seconds) of the images. episode: its index and length."""
        (frames, times), (episode_index, length) = places, episode
        prefixes = anchors(len(frames), num_prefixes)
        at, curves = frames[prefixes - 1], []
        for logprobs, bound in zip(*self._ask(images, times, tasks, prefixes.tolist()), strict=True):
            scores = {"logprob": logprobs[:, 0], "logodds": logprobs[:, 0] - logprobs[:, 1]}
            if np.isnan(logprobs).any():
                scores["logprob_bound"] = bound[:, 0]
            value = interpolate(at, min_max(logprobs[:, 0], self.config.protocol), length)
            signals = {name: _nats(name, spread(each, at, length)) for name, each in scores.items()}
            curves.append(Progress(episode_index, Curve(value, signals=signals, score="logprob")))
        return curves

    def _ask(
        self, images: UInt8[np.ndarray, "N H W 3"], times_s: Float[np.ndarray, "N"], tasks: Sequence[str], prefixes: Sequence[int]
    ) -> tuple[Float[np.ndarray, "I P 2"], Float[np.ndarray, "I P 2"]]:
        """Returns log P of the answer and of its contrast, by instruction and prefix, NaN where a server does not say; and an upper bound
        of each.
        """
        engine, answers = self.engine, self.config.answers
        clip: Clip = engine.clip(images, times_s=times_s.tolist(), resolution=self.config.resolution)
        if isinstance(engine, RemoteEngine):
            scores = engine.ask(clip, instructions=list(tasks), answers=answers, prefixes=prefixes)
            return scores.logprob, scores.bound
        logprob = engine.score(clip, instructions=list(tasks), answers=answers, prefixes=prefixes)
        return logprob, logprob

    # While the robot moves

    def reset(self, task: str = "", *, fps: float | None = None) -> None:
        """Begins a new attempt at `task`, whose frames come at `fps`; None: at the config's rate, and every frame is used.

        DataError under protocol "lerobot" (earlier frames would change size), and on a server (every step would send the clip again).
        """
        if self.config.protocol == "lerobot":
            raise DataError("under protocol='lerobot' earlier frames change size as a clip grows; online it has to be protocol='milepost'")
        words = task.strip() or self.config.default_task
        if not words:
            raise DataError("reset needs the task in words, or a default_task")
        if fps is not None and not 0 < fps < math.inf:
            raise DataError(f"fps should be above 0 and finite, got {fps}")
        stream = self.engine.stream(instructions=[words], answers=self.config.answers, resolution=self.config.resolution)
        self._attempt = _Attempt(stream, fps or self.config.fps)

    def step(
        self, frame: Shaped[np.ndarray, "..."] | Mapping[str, Shaped[np.ndarray, "..."]], state: object = None, *, last: bool = False
    ) -> Step:
        """Returns what is said of the next frame of the attempt, (H, W, 3) or (3, H, W), or camera name -> image: signals "logprob" and
        "logodds", those of `predict`, and "logprob" between the lowest (0) and the highest (1) so far, NaN while there is one.

        Frames between two that `config.fps` asks for cost nothing. last: look at this one in any case, as `predict` does at the end.
        state: not looked at; other models take one.
        DataError before the first `reset`, or if the frame does not fit; it is then as if it had not been.
        """
        if self._attempt is None:
            raise DataError("call reset(task) before the first step")
        if isinstance(frame, Mapping):
            require_cameras([self.config.image_key], frame, whose="this frame has")
            frame = frame[self.config.image_key]
        if np.ndim(frame) != 3:
            raise DataError(f"a step takes one frame, (H, W, 3) or (3, H, W), this is {np.shape(frame)}")
        return self._attempt.step(clip_of(frame)[0], self.config, last=last)

    # What a reward model of the other kind would do

    def loss(self, *_: object, **__: object) -> NoReturn:
        """Raises ValueError: nothing here can be trained."""
        raise ValueError("TOPReward is zero-shot: it has nothing to train. Label with it as it is, or train a SARM (milepost train)")

    forward = __call__ = loss

    def train(self, mode: bool = True) -> TOPRewardModel:
        """Raises ValueError, unless `mode` is False."""
        if mode:
            self.loss()
        return self

    def eval(self) -> TOPRewardModel:
        """Returns the model itself: it has no training mode."""
        return self

    def to(self, device: str | torch.device) -> TOPRewardModel:
        """Moves the model to another device."""
        self.config = dataclasses.replace(self.config, device=str(device))
        if isinstance(self._engine, Engine) and self._engine.networks.device != torch.device(device):
            self._engine = None
        return self

    # On disk

    def save_pretrained(self, folder: Path | str, *, format: Literal["milepost", "lerobot"] = "milepost") -> None:  # noqa: A002
        """Writes `config.json`, about 1 KB: the VLM is named in it, not copied, and need not be here. format="lerobot": as LeRobot 0.6.1
        reads it.

        DataError says why a config cannot be saved so.
        """
        if format not in ("milepost", "lerobot"):
            raise ValueError(f"format must be milepost or lerobot, got '{format}'")
        values = self.config.to_lerobot() if format == "lerobot" else self.config.to_dict()
        Path(folder).mkdir(parents=True, exist_ok=True)
        write_text(Path(folder) / "config.json", json.dumps(values, indent=2) + "\n")

    @classmethod
    def from_pretrained(cls, folder: Path | str, device: str | None = None, **fields: Any) -> TOPRewardModel:
        """Returns a saved config's model, ours or LeRobot's, from a folder or the Hub (`owner/name`), but for the fields given. No VLM is
        loaded yet.
        """
        return cls(read_config(folder, device=device, **fields))

    def push_to_hub(self, repo_id: str = "", *, private: bool = True) -> str:
        """Uploads the saved config to the Hub repository `owner/name` and returns its address. Nothing else here ever uploads."""
        with TemporaryDirectory() as folder:
            self.save_pretrained(folder)
            return upload_model(Path(folder), repo_id, private=private)


def _nats(name: str, values: Float[np.ndarray, "T"]) -> Signal:
    """Returns a score as a signal: a log-probability is at most 0, log-odds have no bound."""
    return Signal(values.astype(np.float32), "nats", high=math.inf if name == "logodds" else 0.0)


class _Attempt:
    """One attempt as its frames arrive."""

    def __init__(self, stream: Stream, fps: float) -> None:
        self.stream, self.fps = stream, fps
        self.frame, self.samples = 0, 0
        self.low, self.high = math.inf, -math.inf
        self.now = Step(math.nan, {"logprob": math.nan, "logodds": math.nan}, fresh=False)

    def step(self, image: UInt8[np.ndarray, "H W 3"], config: TOPRewardConfig, *, last: bool) -> Step:
        due = self.frame == grid(self.samples, source_fps=self.fps, fps=config.fps)
        if due or last:
            raw, other = (float(each) for each in self.stream.append(image, self.frame / self.fps)[0])
            self.samples += due
            self.low, self.high = min(self.low, raw), max(self.high, raw)
            progress = (raw - self.low) / (self.high - self.low) if self.high > self.low else math.nan
            self.now = Step(progress, {"logprob": raw, "logodds": raw - other})
        else:
            self.now = dataclasses.replace(self.now, fresh=False)
        self.frame += 1
        return self.now


def read_config(folder: Path | str, **fields: Any) -> TOPRewardConfig:
    """Returns a saved config but for the fields given. DataError if there is none, it is not TOPReward's, or it is a Hub's and names a
    path.
    """
    path = find_model(folder) / "config.json"
    if not path.exists():
        raise DataError(f"{folder} is not a saved TOPReward: {path} is missing")
    values = own_values(read_json_object(path, what="model config"))
    if values.get("type") != "topreward":
        raise DataError(f"{path} is not the config of a TOPReward model")
    config = dataclasses.replace(TOPRewardConfig.from_dict(values), **fields)
    if revision_of(path.parent) and not is_hub_id(config.vlm_name) and "vlm_name" not in fields:
        raise DataError(f"the Hub model '{folder}' names a VLM on its author's machine ({shown(config.vlm_name)}); give --vlm-name")
    return config


def open_engine(config: TOPRewardConfig) -> Engine | RemoteEngine:
    """Returns the VLM of a config: loaded here, or (`base_url`) a connection to its server. DataError if it cannot be had."""
    if config.base_url is not None:
        server = ServerConfig(
            config.base_url, config.vlm_name, api_key_env=config.api_key_env, concurrency=config.concurrency,
            price_per_million=config.price_per_million,
        )  # fmt: skip
        return RemoteEngine(server, prompt=config.prompt)
    engine = load_engine(
        config.vlm_name,
        revision=config.vlm_revision,
        device=config.device or "cpu",
        dtype=config.torch_dtype,
        quantization=config.quantization,
        attention=config.attn_implementation or "sdpa",
        prompt=config.prompt,
        max_memory=config.max_memory,
    )
    return engine.with_limit(config.max_input_length)
