"""A trained model behind a frozen encoder: where its features come from, one frame at a time too, and its life on disk and on the Hub.

A model of this kind adds its networks, its loss, and how their output becomes progress.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, ClassVar, TypeVar

import numpy as np
import torch
from jaxtyping import Float, Shaped, UInt8
from torch import Tensor, nn

from milepost.core import DataError, Dataset, KnowsEpisodes, Step, Tick, require_cameras
from milepost.datasets import upload_model
from milepost.encoders import Encoder, FeatureCache, PixelEncoder, Precision, load_encoder
from milepost.models.instructions import blank_fault
from milepost.models.model_config import ModelConfig
from milepost.models.online import History, Windows, camera_image, computable, live_state, windows_of
from milepost.models.saved import hash_of, require_fit, write_folder

M = TypeVar("M", bound="EncodedModel")
Frames = Mapping[str, Shaped[np.ndarray, "..."]] | Float[np.ndarray, "_ _"]
"""One moment: camera name -> image, or its features."""
_UNANSWERED = Step(math.nan)


class EncodedModel(nn.Module):
    """The config and the frozen encoder of a model. cache: where features of the dataset at hand are kept; None keeps nothing."""

    WRONG_INSTRUCTION: ClassVar[str]
    """What the model learnt of an instruction that is not the right one, as the end of a sentence."""
    encoder: PixelEncoder
    """The trained part of the built-in encoder; any other encoder is not part of the weights."""
    config: Any

    def __init__(self, config: ModelConfig, precision: Precision = "float32") -> None:
        super().__init__()
        self.config = config
        self.precision: Precision = precision
        self.cache: FeatureCache | None = None
        self._passing: FeatureCache | None = None
        self._frozen: Encoder | None = None
        self._history: History | None = None
        if config.encoder == "pixels":
            self.encoder = PixelEncoder(len(config.cameras), config.image_dim)

    @property
    def device(self) -> torch.device:
        return next(itertools.chain(self.parameters(), self.buffers())).device

    def identity(self) -> dict[str, Any]:
        """Returns what its curves depend on: its config. The weights have a hash of their own."""
        config: dict[str, Any] = self.config.to_dict()
        return config

    def weights_hash(self) -> str:
        """Returns the SHA-256 of all parameters and buffers with their names."""
        return hash_of(self.state_dict())

    def run_settings(self, options: Mapping[str, Any]) -> dict[str, Any]:
        """Returns what the frames were encoded with."""
        return {"encoder": self.frozen.name}

    def prepare_for(self, dataset: Dataset, *, cache: Path | None = None, on_frames: Tick | None = None) -> None:
        """Makes the model ready for a dataset: its cameras are looked for, and what else it takes from a dataset is settled.

        cache: the folder in which features of the frames are kept, in half precision. DataError if a camera is not there.
        """
        require_cameras(self.config.cameras, dataset.cameras, hint=f"the model looks at {', '.join(self.config.cameras)}")
        self.settle(dataset)
        if self.cache is not None and self.cache.fingerprint not in ("", dataset.fingerprint):
            self.cache = None
        if cache is not None or on_frames is not None:
            ticks = over_all(on_frames, dataset, cameras=len(self.config.cameras))
            self.cache = FeatureCache(cache, dataset.fingerprint, encoder=self.frozen, half=cache is not None, on_frames=ticks)

    @property
    def is_for_one_dataset(self) -> bool:
        """Returns whether `settle` took something from the dataset."""
        return False

    def settle(self, dataset: Dataset) -> None:
        """Settles what this kind of model takes from a dataset, or warns of; nothing, unless it says otherwise."""

    # What the encoder makes

    @property
    def frozen(self) -> Encoder:
        """Returns the encoder that images and words go through first, loaded when it is first needed. DataError if it cannot be loaded."""
        if self._frozen is None:
            config = self.config
            self.use_encoder(load_encoder(config.encoder, device=str(self.device), precision=self.precision, text_width=config.text_dim))
        assert self._frozen is not None
        return self._frozen

    def use_encoder(self, encoder: Encoder) -> None:
        """Uses this encoder from now on. DataError if its features have other widths, or if it is not the one this model learnt with."""
        require_encoder(self.config, encoder)
        self._frozen, self._passing = encoder, None

    def use_features(self: M, features: FeatureCache | None) -> M:
        """Takes the features from this cache, and uses its encoder. DataError as `use_encoder`. None: from no cache."""
        if features is not None:
            self.use_encoder(features.encoder)
        self.cache = features
        return self

    def project(self, features: Shaped[np.ndarray, "T C P"]) -> Float[np.ndarray, "T C E"]:
        """Returns the networks' input for the frozen encoder's output: the built-in one's components; others' features as they are."""
        return self.encoder.project(features) if self.config.encoder == "pixels" else features

    @property
    def feature_cache(self) -> FeatureCache:
        """Returns where its features come from: the cache in use, else one that keeps nothing on disk and rounds nothing."""
        self._passing = self._passing or FeatureCache(None, "", encoder=self.frozen, half=False)
        return self.cache or self._passing

    def frame_features(self, frames: Mapping[str, Shaped[np.ndarray, "..."]]) -> Float[np.ndarray, "C E"]:
        """Returns the image features of one moment: camera name -> image, (H, W, 3) or (3, H, W). DataError if one does not fit."""
        return self._encoded([self.camera_images(frames)])[0]

    def camera_images(self, frames: Mapping[str, Shaped[np.ndarray, "..."]]) -> list[UInt8[np.ndarray, "_ _ 3"]]:
        """Returns the images of this model's cameras, as the encoder takes them. DataError if one is missing or does not fit."""
        require_cameras(self.config.cameras, frames, whose="this frame has")
        return [camera_image(frames[camera], camera) for camera in self.config.cameras]

    def blank_fault(self, task: str, remedy: str = "use --task") -> str:
        """Returns what is wrong with a blank instruction; "" if it is not blank, or the model learnt from such. remedy: what to do."""
        return blank_fault(task, self.config.blank_task, wrong_means=self.WRONG_INSTRUCTION, remedy=remedy)

    def validation_scores(self, windows: Mapping[str, Tensor]) -> dict[str, float]:
        """Returns "validation_loss", and what else is worth a line of the log, on validation samples. A model says how."""
        raise NotImplementedError

    # While the robot moves

    def begin(self, *, fps: float, task: str = "", text: Float[np.ndarray, "M"] | None = None) -> History:
        """Returns a new attempt at `task`, whose frames come at `fps`; `advance` takes it on. text: the instruction's features.

        DataError if the instruction is blank and it learnt from none.
        """
        if text is None and (fault := self.blank_fault(task, "begin with task=, the instruction in words")):
            raise DataError(fault)
        self.eval()
        words = self.frozen.text([task])[0] if text is None else text
        return History(self.config.n_obs_steps, self.config.gap(fps), words, task=task, memory=self.new_memory(task))

    def new_memory(self, task: str) -> Any:
        """Returns what this kind of model remembers of an attempt beside its frames; nothing, unless it says otherwise."""
        return None

    @torch.no_grad()
    def advance(
        self, attempts: Sequence[History], frames: Sequence[Frames], states: Sequence[Float[np.ndarray, "_"] | None]
    ) -> list[Step | DataError]:
        """Returns what is said of the next frame of each attempt, all of them in one pass through the networks.

        frames: of each attempt, camera name -> image, (H, W, 3) or (3, H, W), or features (C, E). states: raw units. An attempt whose image
        or state does not fit gets a DataError, and is then as if that moment had not been. ValueError if an attempt is there twice.
        """
        if len({id(attempt) for attempt in attempts}) < len(attempts):
            raise ValueError("an attempt can be advanced by one frame in a call")
        if self.training:  # eval() visits each module, which takes a sixth of the time of one robot's step
            self.eval()
        answers: list[Step | DataError] = []
        inputs = []
        for frame, state in zip(frames, states, strict=True):
            try:
                row = live_state(state if self.config.takes_state else None, len(self.config.state_mean))
                row = computable(self.normalised_state(row)[0])
                inputs.append((self.camera_images(frame) if isinstance(frame, Mapping) else frame, row))
                answers.append(_UNANSWERED)
            except DataError as error:
                answers.append(error)
        live = [place for place, answer in enumerate(answers) if answer is _UNANSWERED]
        if not live:
            return answers
        for place, features, (_, row) in zip(live, self._encoded([images for images, _ in inputs]), inputs, strict=True):
            attempts[place].push(features, row)
        running = [attempts[place] for place in live]
        words = torch.from_numpy(np.stack([attempt.text for attempt in running])).to(self.device)
        for place, answer in zip(live, self.steps(running, windows_of(running), words), strict=True):
            answers[place] = answer
        return answers

    def steps(self, attempts: Sequence[History], windows: Windows, words: Float[Tensor, "B M"]) -> list[Step]:
        """Returns what is said at these windows, (features, state, valid) with B rows, one of each attempt. A model says how."""
        raise NotImplementedError

    def _encoded(self, inputs: Sequence[Any]) -> list[Float[np.ndarray, "C E"]]:
        """Returns the features of these inputs: images of one size go through the encoder together. Features stay as they are."""
        encoded: list[Any] = list(inputs)
        sizes: dict[tuple[Any, ...], list[int]] = {}
        for place, images in enumerate(inputs):
            if not isinstance(images, np.ndarray):
                sizes.setdefault(tuple(image.shape for image in images), []).append(place)
        for places in sizes.values():
            by_camera = [self.frozen.images(np.stack(images)) for images in zip(*(inputs[place] for place in places), strict=True)]
            for place, features in zip(places, self.project(np.stack(by_camera, axis=1)), strict=True):
                encoded[place] = features
        return encoded

    def reset(self, *, fps: float, task: str = "", text: Float[np.ndarray, "M"] | None = None) -> None:
        """Begins a new attempt at `task`, whose frames come at `fps`. text: the instruction's features, else computed here.

        DataError if the instruction is blank and the model learnt from none, or if the model looks at frames after now.
        """
        self._history = self.begin(fps=fps, task=task, text=text)

    def step(self, frames: Frames, state: Float[np.ndarray, "S"] | None = None) -> Step:
        """Returns what is said of the next frame of the attempt: what `predict` will say of it, to rounding, and its signals.

        frames: camera name -> image, (H, W, 3) or (3, H, W), or features. state: robot state, raw units. DataError before the first
        `reset`, and for an image or a state that does not fit; that moment is then as if it had not been.
        """
        if self._history is None:
            raise DataError("call reset(task=..., fps=...) before the first step")
        (answer,) = self.advance([self._history], [frames], [state])
        if isinstance(answer, DataError):
            raise answer
        return answer

    def normalised_state(self, state: Float[np.ndarray, "T S"]) -> Float[np.ndarray, "T Z"]:
        """Returns robot states as the networks take them. A model says how."""
        raise NotImplementedError

    # On disk

    def save_pretrained(self, folder: Path | str) -> None:
        """Writes `config.json` and `model.safetensors`, each atomically."""
        write_folder(Path(folder), self.config.to_dict(), self.state_dict())

    @classmethod
    def with_weights(cls: type[M], folder: Path, config: Any, weights: Mapping[str, Tensor], *arguments: Any) -> M:
        """Returns the model of a config with these weights. DataError if they do not fit, which names the parameters and the folder."""
        with torch.device("meta"):  # shapes alone: what does not fit is found before memory is asked for
            require_fit(folder, cls(config).state_dict(), weights)
        model = cls(config, *arguments)
        model.load_state_dict(weights)
        return model

    @classmethod
    def of_config(cls: type[M], config: Any, folder: str | None) -> M:
        """Returns the model of a config, with the weights in the folder, or new ones without one."""
        device = config.device or "cpu"
        if folder is None:
            return cls(config).to(device)
        return cls.from_pretrained(folder, device, config=dataclasses.replace(config, device=None))

    @classmethod
    def from_pretrained(cls: type[M], folder: Path | str, device: str | torch.device = "cpu", *, config: Any = None) -> M:
        """Loads a saved model from a folder or the Hub. config: instead of the saved one. A model says how."""
        raise NotImplementedError

    def untrained(self: M, seed: int) -> M:
        """Returns a model with new weights behind the same encoder, with the same features and statistics."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            other = self.with_new_weights()
        other.load_state_dict(dict(self.named_buffers()), strict=False)
        return other.use_features(self.feature_cache).to(self.device).eval()

    def with_new_weights(self: M) -> M:
        """Returns another model of this config, as it is made."""
        return type(self)(self.config)

    def push_to_hub(self, repo_id: str = "", *, private: bool = True) -> str:
        """Uploads the saved model to the Hub repository `owner/name` and returns its address. Nothing else here ever uploads.

        DataError if no repository is named, or the Hub refuses.
        """
        with TemporaryDirectory() as folder:
            self.save_pretrained(folder)
            return upload_model(Path(folder), repo_id, private=private)


def use_threads(model: Any, threads: int | None) -> None:
    """Sets the processor threads that a pass of this process has. None: 1 behind the built-in encoder, else torch's choice.

    The built-in encoder's images and the networks behind it are so small that a second thread costs one robot more than it saves.
    """
    if threads is None and isinstance(model, EncodedModel) and model.config.encoder == "pixels":
        threads = 1
    if threads is not None:
        torch.set_num_threads(threads)


def over_all(on_frames: Tick | None, dataset: Dataset, *, cameras: int) -> Tick | None:
    """Returns what counts the frames of all episodes and cameras, where it hears of one episode after the other."""
    if on_frames is None or not isinstance(dataset, KnowsEpisodes):
        return on_frames
    total = dataset.total_frames * cameras
    total_done, last_count = 0, 0

    def count(now: int, whole: int) -> None:
        nonlocal total_done, last_count
        total_done, last_count = total_done + now - (last_count if now > last_count else 0), now if now < whole else 0
        on_frames(min(total_done, total), total)

    return count


def require_encoder(config: ModelConfig, encoder: Encoder) -> None:
    """Raises DataError if an encoder gives features of other widths, or if it is known not to be the one this model learnt with."""
    if config.encoder != "pixels" and (encoder.width, encoder.text_width) != (config.image_dim, config.text_dim):
        raise DataError(
            f"the encoder {encoder.name} gives {encoder.width} numbers an image and {encoder.text_width} a sentence, this model takes "
            f"{config.image_dim} and {config.text_dim}: it learnt with '{config.encoder}'"
        )
    fingerprint = config.encoder_fingerprint or ("pixels" if config.encoder == "pixels" else "")
    if fingerprint and fingerprint != encoder.fingerprint:
        raise DataError(
            f"the encoder {encoder.name} is not the one this model learnt with ('{config.encoder}', {fingerprint}): "
            f"its weights or preprocessing differ ({encoder.fingerprint}), and its features would mean something else"
        )
