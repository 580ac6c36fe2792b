"""The part of a model that asks a VLM which does not depend on what it asks: the VLM, the frames, the instruction, the config on disk."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, ClassVar, NoReturn, TypeVar

import numpy as np
import torch
from jaxtyping import Float, Int, Shaped, UInt8

from milepost.core import (
    DataError,
    Dataset,
    Episode,
    Progress,
    Tick,
    UnreadableError,
    has_words,
    read_json_object,
    require_cameras,
    require_tasks,
    shown,
    warn_user,
    write_text,
)
from milepost.datasets import find_model, is_hub_id, revision_of, upload_model
from milepost.models.plugin_format import own_values
from milepost.models.registry import owner_of
from milepost.models.zero_shot.clips import clip_of
from milepost.models.zero_shot.config import Config, TunableConfig, VLMConfig
from milepost.models.zero_shot.sampling import anchors, grid, looked_at
from milepost.vlm import (
    FINAL,
    SPECIAL_TOKEN,
    Engine,
    MalformedError,
    Prompt,
    RefusedError,
    RemoteEngine,
    ServerConfig,
    Stream,
    UnreachableError,
    checkpoint_config,
    learnt_hashes,
    load_engine,
    read_learnt,
    require_learnt,
    write_learnt,
)

Model = TypeVar("Model", bound="ZeroShotModel")
Places = tuple[Shaped[np.ndarray, "N"], Float[np.ndarray, "N"]]
"""Frames and seconds of the images that a VLM sees."""
LEARNT = "learnt"
"""The entry of a fine-tuned model's config.json with the hashes of the files beside it."""
IN_A_ROW = 3
"""The run ends after a server failed on so many episodes in a row."""


class ZeroShotModel:
    """The config and, from its first question on, the VLM it names. A model of a kind has `_curves`, and `prompt` if it has words.

    engine: an open one, to share it between models; each asks in its own words.
    """

    config_class: ClassVar[type[VLMConfig]] = VLMConfig
    HAS_HEADS: ClassVar[bool] = False
    """Whether the VLM has heads of its own beside the output layer."""
    config: VLMConfig

    def __init__(self, config: VLMConfig, engine: Engine | RemoteEngine | None = None) -> None:
        self.config = config
        self._engine = None if engine is None else engine.with_prompt(self.prompt)
        self._unanswered = 0
        self._took_camera = False

    @property
    def is_for_one_dataset(self) -> bool:
        """Returns whether the camera is the single one of the dataset that the model is ready for, and not the one of its config."""
        return self._took_camera

    @property
    def engine(self) -> Engine | RemoteEngine:
        """Returns the VLM, loaded (or its server called) when it is first needed. DataError if it cannot be."""
        if self._engine is None:
            config = self.config
            is_tuned = isinstance(config, TunableConfig) and config.tuned is not None
            self._engine = tuned_engine(config, self.open) if is_tuned else self.open()
        return self._engine

    def open(self) -> Engine | RemoteEngine:
        """Returns the VLM as it was published, newly loaded. DataError as `engine`."""
        return open_engine(self.config, self.prompt)

    @property
    def prompt(self) -> Prompt:
        """Returns the words that the VLM is asked in: the engine's own, for a model that has no words or puts them into a conversation."""
        return Prompt()

    def looked_at(self, length: int, source_fps: float) -> tuple[Int[np.ndarray, "N"], Float[np.ndarray, "N"]]:
        """Returns (frames, seconds) of what is taken of an episode of `length` frames; the last frame is always among them."""
        return looked_at(length, source_fps, self.config.fps)

    def identity(self) -> dict[str, Any]:
        """Returns what its curves depend on: its config, and what it learnt if it was fine-tuned."""
        config, values = self.config, self.config.to_dict()
        if isinstance(config, TunableConfig) and config.tuned is not None:
            values[LEARNT] = learnt_hashes(Path(config.pretrained_path or ""))
        return values

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
            self.config, self._took_camera = dataclasses.replace(self.config, image_key=there[0]), True
            warn_user(f"there is no camera '{camera}': looking at '{there[0]}', the only one")
        _ = self.engine

    def close(self) -> list[str]:
        """Closes the connections to a server, if there are any. Returns what it was asked and what it was like, a line each."""
        if not isinstance(self._engine, RemoteEngine):
            return []
        self._engine.close()
        return [f"server: {line}" for line in (self._engine.usage, *self._engine.notes)]

    def look(self, episode: Episode) -> UInt8[np.ndarray, "N H W 3"]:
        """Returns the frames that `predict` takes; reading them needs no VLM. DataError if the camera is not there."""
        return episode.camera(self.config.image_key)[self.looked_at(episode.length, episode.fps)[0]]

    def predict(self, episode: Episode, *, num_prefixes: int | None = None, seen: UInt8[np.ndarray, "N H W 3"] | None = None) -> Progress:
        """Returns the curve of an episode, with the signals that the class names; a signal is NaN where it was not asked for.

        num_prefixes: None asks after every frame looked at; else after so many, first and last among them, and progress is drawn straight
        between. seen: the frames, if `look` has read them already.
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

    def questions(self, episode: Episode, num_prefixes: int | None) -> int:
        """Returns how many requests a server gets about an episode."""
        return self.questions_of(len(self.looked_at(episode.length, episode.fps)[0]), num_prefixes)

    def questions_of(self, count: int, num_prefixes: int | None) -> int:
        """Returns how many questions `count` frames looked at make: one a prefix. DataError for num_prefixes that mean nothing here."""
        return len(anchors(count, num_prefixes))

    def predict_tasks(
        self, episode: Episode, tasks: Sequence[str], *, num_prefixes: int | None = None, seen: UInt8[np.ndarray, "N H W 3"] | None = None
    ) -> list[Progress]:
        """Returns the curve of an episode under each of several instructions; the VLM reads it once."""
        places = self.looked_at(episode.length, episode.fps)
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
        self, images: UInt8[np.ndarray, "N H W 3"], places: Places, tasks: Sequence[str], episode: tuple[int, int], num_prefixes: int | None
    ) -> list[Progress]:
        """Returns a curve for each task. places: (frames, seconds) of the images. episode: its index and length."""
        raise NotImplementedError

    def reset(self, task: str = "", *, fps: float | None = None) -> None:
        """Raises DataError, unless the model can follow an attempt while it runs and has a `reset` of its own."""
        raise DataError(
            f"{self.config.title} cannot follow an attempt frame by frame: label recorded episodes with it. While a robot moves, use "
            "TOPReward, RoboReward, or a trained model (sarm, value, success)"
        )

    def instruction_for(self, task: str) -> str:
        """Returns the instruction of a new attempt: `task`, or `default_task`. DataError if there is none."""
        words = task.strip() or self.config.default_task
        if not words:
            raise DataError("reset needs the task in words, or a default_task")
        return words

    def frame_of(self, frame: Shaped[np.ndarray, "..."] | Mapping[str, Shaped[np.ndarray, "..."]]) -> UInt8[np.ndarray, "H W 3"]:
        """Returns the image that a step looks at: (H, W, 3) or (3, H, W), or that of the camera in camera name -> image. DataError if it
        does not fit.
        """
        if isinstance(frame, Mapping):
            require_cameras([self.config.image_key], frame, whose="this frame has")
            frame = frame[self.config.image_key]
        if np.ndim(frame) != 3:
            raise DataError(f"a step takes one frame, (H, W, 3) or (3, H, W), this is {np.shape(frame)}")
        return clip_of(frame)[0]

    # What a reward model of the other kind would do

    def loss(self, *_: object, **__: object) -> NoReturn:
        """Raises ValueError: nothing here is trained step by step."""
        tunable = isinstance(self.config, TunableConfig)
        words = (
            "is fine-tuned by milepost train with --head-only or --lora, not here" if tunable else "is zero-shot: there is nothing to train"
        )
        raise ValueError(f"{self.config.title} {words}. Label with it, or train a SARM (milepost train)")

    forward = __call__ = loss

    def train(self: Model, mode: bool = True) -> Model:
        """Raises ValueError, unless `mode` is False."""
        if mode:
            self.loss()
        return self

    def eval(self: Model) -> Model:
        """Returns the model itself: it has no training mode."""
        return self

    def to(self: Model, device: str | torch.device) -> Model:
        """Moves the model to another device."""
        self.config = dataclasses.replace(self.config, device=str(device))
        if isinstance(self._engine, Engine) and self._engine.networks.device != torch.device(device):
            self._engine = None
        return self

    # On disk

    def save_pretrained(self, folder: Path | str) -> None:
        """Writes `config.json`, about 1 KB: the VLM is named in it, not copied, and need not be here.

        Of a fine-tuned model it also writes what was learnt, for which the VLM is loaded.
        """
        config, values = self.config, self.config.to_dict()
        if isinstance(config, TunableConfig) and config.tuned is not None and isinstance(self.engine, Engine):
            write_learnt(self.engine, Path(folder), base=config.vlm_name, revision=config.vlm_revision)
            values[LEARNT] = learnt_hashes(Path(folder))
        self._save(folder, values)

    def _save(self, folder: Path | str, values: Mapping[str, Any], *, allow_nan: bool = False) -> None:
        """Writes the configuration. allow_nan: for LeRobot's form, which writes -Infinity for no threshold."""
        Path(folder).mkdir(parents=True, exist_ok=True)
        write_text(Path(folder) / "config.json", json.dumps(values, indent=2, allow_nan=allow_nan) + "\n")

    @classmethod
    def bare(cls: type[Model], device: str | None = None, **fields: Any) -> Model:
        """Returns the model of a config with these fields. ValueError if there is no such field."""
        return cls(cls.config_class(device=device, **fields))

    @classmethod
    def from_pretrained(cls: type[Model], folder: Path | str, device: str | None = None, **fields: Any) -> Model:
        """Returns a saved config's model, ours or LeRobot's, from a folder or the Hub (`owner/name`), but for the fields given. No VLM is
        loaded yet.
        """
        return cls(read_config(cls.config_class, folder, device=device, **fields))

    def push_to_hub(self, repo_id: str = "", *, private: bool = True) -> str:
        """Uploads the saved config to the Hub repository `owner/name` and returns its address. Nothing else here ever uploads."""
        with TemporaryDirectory() as folder:
            self.save_pretrained(folder)
            return upload_model(Path(folder), repo_id, private=private)


class Attempt:
    """One attempt as its frames arrive at `fps`, of which `sampled_fps` a second are asked about."""

    def __init__(self, stream: Stream, *, fps: float | None, sampled_fps: float) -> None:
        """Raises DataError if fps is not above 0. None: every frame is asked about."""
        if fps is not None and not 0 < fps < math.inf:
            raise DataError(f"fps should be above 0 and finite, got {fps}")
        self._stream, self._fps, self._sampled_fps = stream, fps or sampled_fps, sampled_fps
        self._frame, self._samples = 0, 0

    def ask(self, image: UInt8[np.ndarray, "H W 3"], *, last: bool, missing: int = 0) -> Float[np.ndarray, "A"] | None:
        """Returns log p of each answer after this frame; None if it is between two that are asked about. last: it is asked about.

        missing: so many frames before it never came.
        """
        frame = self._frame + missing
        due = frame >= self._next_sample
        logprobs = self._stream.append(image, frame / self._fps)[0] if due or last else None
        while due and frame >= self._next_sample:
            self._samples += 1
        self._frame = frame + 1
        return logprobs

    def snapshot(self) -> tuple[Any, ...]:
        """Returns what `restore` needs."""
        return self._stream.snapshot(), self._frame, self._samples

    def restore(self, snapshot: tuple[Any, ...]) -> None:
        """Makes the attempt what it was at this snapshot."""
        stream, self._frame, self._samples = snapshot
        self._stream.restore(stream)

    @property
    def _next_sample(self) -> int:
        return int(grid(self._samples, source_fps=self._fps, fps=self._sampled_fps))


def read_config(config_class: type[Config], folder: Path | str, **fields: Any) -> Config:
    """Returns a saved config but for the fields given. DataError if there is none, it is another model's, it does not fit what lies beside
    it, or it is a Hub's and names a path.
    """
    path = find_model(folder) / "config.json"
    if not path.exists():
        raise DataError(f"{folder} is not a saved {config_class.title}: {path} is missing")
    values = own_values(read_json_object(path, what="model config"))
    if values.get("type") != config_class.name:
        raise DataError(f"{path} is not the config of a {config_class.title} model")
    hashes = values.pop(LEARNT, {})
    config: Config = dataclasses.replace(config_class.from_dict(values), **fields)
    _require_learnt(path, getattr(config, "tuned", None), hashes)
    if isinstance(config, TunableConfig) and config.tuned is not None:
        config = dataclasses.replace(config, pretrained_path=str(path.parent))
    if revision_of(path.parent) and not is_hub_id(config.vlm_name) and "vlm_name" not in fields:
        raise DataError(f"the Hub model '{folder}' names a VLM on its author's machine ({shown(config.vlm_name)}); give --vlm-name")
    return config


def _require_learnt(path: Path, tuned: str | None, hashes: Any) -> None:
    """Raises DataError if what a config.json says of fine-tuning is not what its folder has. hashes: its entry `LEARNT`."""
    if not isinstance(hashes, dict) or (tuned is not None and not hashes):
        raise DataError(f"{path} says tuned='{tuned}', and not which files were learnt ({LEARNT}); restore it, or train the model again")
    has_adapter = any(name.startswith("adapter_") for name in hashes)
    if bool(hashes) != (tuned is not None) or has_adapter != (tuned == "lora"):
        raise DataError(
            f"{path} was edited: its model learnt {' and '.join(hashes)}, and it says tuned={shown(tuned)}; set it to "
            f"'{'lora' if has_adapter else 'heads'}' again"
        )
    require_learnt(path.parent, hashes)


def tuned_engine(config: Any, open_base: Callable[[], Engine | RemoteEngine]) -> Engine | RemoteEngine:
    """Returns the checkpoint of a fine-tuned model with what it learnt. config: its TunableConfig, with the folder in `pretrained_path`.

    DataError if the checkpoint is gone or has other weights than those it was tuned on, or if what it learnt cannot be read.
    """
    folder, shared = Path(config.pretrained_path or ""), _SHARED.set(None)  # what it learnt would change every model that shares the VLM
    try:
        engine = open_base()
    except DataError as error:
        raise DataError(
            f"the model in {folder} was fine-tuned from the checkpoint '{config.vlm_name}', which it needs: {error}. If the checkpoint is "
            "elsewhere now, give its folder with --vlm-name"
        ) from error
    finally:
        _SHARED.reset(shared)
    if not isinstance(engine, Engine) or engine.fingerprint != config.tuned_on:
        raise DataError(
            f"the checkpoint '{config.vlm_name}' has other weights than those that the model in {folder} was fine-tuned on: give the right "
            "one with --vlm-name"
        )
    read_learnt(engine, folder, has_adapter=config.tuned == "lora")
    return engine


def open_engine(config: VLMConfig, prompt: Prompt) -> Engine | RemoteEngine:
    """Returns the VLM of a config: loaded here, or (`base_url`) a connection to its server. DataError if it cannot be had."""
    if config.base_url is not None:
        server = ServerConfig(
            config.base_url, config.vlm_name, api_key_env=config.api_key_env, concurrency=config.concurrency,
            price_per_million=config.price_per_million,
        )  # fmt: skip
        return RemoteEngine(server, prompt=prompt)
    shared = _SHARED.get()
    loading = (
        config.vlm_name, config.vlm_revision, config.device or "cpu", config.torch_dtype, config.quantization,
        config.attn_implementation or "sdpa", config.max_memory,
    )  # fmt: skip
    if shared is not None and loading in shared:
        return shared[loading].with_prompt(prompt).with_limit(config.max_input_length)
    owner = owner_of(checkpoint_config(config.vlm_name, config.vlm_revision))
    if owner is not None:
        raise DataError(
            f"{config.vlm_name} is a checkpoint of the model {owner.name}, which is read through heads of its own: "
            f"use --model {owner.name} --vlm-name {config.vlm_name}"
        )
    engine = load_engine(
        config.vlm_name,
        revision=config.vlm_revision,
        device=config.device or "cpu",
        dtype=config.torch_dtype,
        quantization=config.quantization,
        attention=config.attn_implementation or "sdpa",
        prompt=prompt,
        max_memory=config.max_memory,
    )
    if shared is not None:
        shared[loading] = engine
    return engine.with_limit(config.max_input_length)


_SHARED: ContextVar[dict[tuple[Any, ...], Engine] | None] = ContextVar("VLMs that are shared", default=None)


@contextmanager
def sharing_vlms() -> Iterator[None]:
    """Lets the models that are made in this block, and ask the same VLM, load it once; each asks in its own words. A block in such a block
    is a part of it."""
    before = _SHARED.set(_SHARED.get() or {})
    try:
        yield
    finally:
        _SHARED.reset(before)
