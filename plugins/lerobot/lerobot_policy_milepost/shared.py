"""What the plugin's configs and pipelines have in common: fields taken from milepost's configs, and what stands after a model."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection
from types import UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from lerobot.processor import DeviceProcessorStep, PolicyProcessorPipeline, policy_action_to_transition, transition_to_policy_action
from torch import Tensor

T = TypeVar("T")


def with_fields(config: type, *, without: Collection[str], **changes: Any) -> Callable[[type[T]], type[T]]:
    """Returns a decorator, to stand below `@dataclass`: the class gets the fields of a config of milepost, before its own.

    without: fields that it does not get. changes: name -> another (type, default). A choice among words is a str, which milepost checks.
    """
    hints = get_type_hints(config)
    fields = {each.name: (_plain(hints[each.name]), each.default) for each in dataclasses.fields(config) if each.name not in without}
    fields |= changes

    def decorate(cls: type[T]) -> type[T]:
        cls.__annotations__ = {**{name: kind for name, (kind, _) in fields.items()}, **cls.__annotations__}
        for name, (_, default) in fields.items():
            setattr(cls, name, default)
        return cls

    return decorate


def _plain(kind: Any) -> Any:
    if get_origin(kind) is Literal:
        return str
    return Union[tuple(map(_plain, get_args(kind)))] if get_origin(kind) in (Union, UnionType) else kind  # noqa: UP007


def after_the_model() -> PolicyProcessorPipeline[Tensor, Tensor]:
    """Returns the pipeline after a model: rewards are brought to the CPU."""
    return PolicyProcessorPipeline[Tensor, Tensor](
        [DeviceProcessorStep("cpu")],
        name="policy_postprocessor",
        to_transition=policy_action_to_transition,
        to_output=transition_to_policy_action,
    )
