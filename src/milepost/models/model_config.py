"""What the configs of the trained models have in common: cameras, window, their form in config.json, and checks of types. No fields."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal, get_args, get_origin, get_type_hints

import numpy as np

from milepost.core import MAIN_HEAD, DataError, Stages, plausible, shown

_KINDS: Mapping[object, str] = {float: "a number", int: "a whole number", str: "a text", bool: "true or false"}
"""Types of fields, as an error calls them."""


class JudgedConfig:
    """A base without fields for every config: which curve is judged, and by which stages."""

    @property
    def judged_head(self) -> str:
        """Returns the head whose curve is compared with the truth of held-out episodes."""
        return MAIN_HEAD

    @property
    def own_stages(self) -> Stages | None:
        """Returns the stages of that head which the model learnt, None if it knows none."""
        return None


class ModelConfig(JudgedConfig):
    """A base without fields for the frozen dataclass that is a trained model's config."""

    TYPE: ClassVar[str]
    """The name of its kind, `type` in config.json."""
    NAME: ClassVar[str]
    """What messages call it."""
    image_key: str
    more_image_keys: tuple[str, ...]
    n_obs_steps: int
    encoder: str
    encoder_fingerprint: str
    image_dim: int
    text_dim: int
    state_mean: tuple[float, ...]
    state_std: tuple[float, ...]
    blank_task: bool
    device: str | None

    @property
    def cameras(self) -> tuple[str, ...]:
        return (self.image_key, *self.more_image_keys)

    @property
    def width(self) -> int:
        """Returns the frames in the window (L): the episode's first one, and `n_obs_steps`."""
        return 1 + self.n_obs_steps

    @property
    def takes_state(self) -> bool:
        """Returns whether the networks see the robot's state."""
        return True

    def to_dict(self) -> dict[str, Any]:
        """Returns the contents of config.json, with the `type` that names the model; without where it runs and came from."""
        fields = dataclasses.asdict(self)  # type: ignore[call-overload]
        return {"type": self.TYPE, **{name: value for name, value in fields.items() if name not in ("device", "pretrained_path")}}

    @classmethod
    def saved_fields(cls, values: Mapping[str, Any]) -> dict[str, Any]:
        """Returns the fields in the contents of config.json, with lists as tuples. DataError names the fields that are unknown."""
        names = {field.name for field in dataclasses.fields(cls)}  # type: ignore[arg-type]
        if unknown := sorted(set(values) - names - {"type"}):
            raise DataError(f"unknown fields in the {cls.NAME} config: {', '.join(unknown)}")
        return {name: tuple(value) if isinstance(value, list) else value for name, value in values.items() if name != "type"}

    def check(self, sizes: Mapping[str, Sequence[str]]) -> None:
        """Raises ValueError if a field holds what no trained model can have.

        sizes: kind of number, as in `core.plausible` -> the fields that hold one: a config that asks for terabytes is refused before
        anything is allocated.
        """
        self._check_types()
        for kind, names in sizes.items():
            for name in names:
                plausible(kind, getattr(self, name), source=f"the {self.NAME} config", name=name)
        if len(set(self.cameras)) != len(self.cameras):
            raise ValueError(f"every camera can be looked at once, got {', '.join(self.cameras)}")
        if len(self.state_mean) != len(self.state_std) or not np.isfinite([*self.state_mean, *self.state_std]).all():
            raise ValueError(f"state_mean and state_std need as many finite numbers, got {self.state_mean} and {self.state_std}")
        if any(each < 0 for each in self.state_std):
            raise ValueError(f"state_std can hold no number below 0, got {self.state_std}")

    def _check_types(self) -> None:
        """Raises ValueError if a field holds another kind of value: JSON edited by hand would otherwise fail far from here."""
        hints = get_type_hints(type(self))
        for name in (field.name for field in dataclasses.fields(self)):  # type: ignore[arg-type]
            value, kind = getattr(self, name), hints[name]
            kinds = get_args(kind) or (kind,)
            if get_origin(kind) is Literal:
                if value not in kinds:
                    raise ValueError(f"{name} must be {' or '.join(kinds)}, got {shown(value)}")
            elif get_origin(kind) is tuple:
                self._require(isinstance(value, tuple) and all(_is(each, kinds[0]) for each in value), name, kind)
            else:
                self._require(any(_is(value, each) for each in kinds), name, kind)

    def _require(self, is_fine: bool, name: str, kind: object) -> None:
        if not is_fine:
            words = _KINDS.get(kind, str(kind).replace("typing.", ""))
            raise ValueError(f"{name} must be {words}, got {shown(getattr(self, name))}")


def _is(value: object, kind: type) -> bool:
    if kind is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    return isinstance(value, kind) and (kind is bool or not isinstance(value, bool))
