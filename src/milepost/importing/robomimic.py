"""Reads robomimic's HDF5 layout: `data/demo_N` with `actions`, `rewards`, `dones` and `obs/KEY`; LIBERO and MimicGen write it too.

The frame rate is the environment's control frequency (`env_args`). A reward is a success only if the environment says that its rewards are
sparse. The filter keys (`mask/NAME`) become facts of the episodes, `mask_NAME`. `next_obs` and the simulator's states are not read.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Shaped

from milepost.core import DataError, count_noun
from milepost.datasets import Recording
from milepost.importing.channels import Arrays, Layout, Outcomes
from milepost.importing.hdf5 import arrays_of, datasets_in, object_of, opened, text_of
from milepost.importing.source import Choices, Entry, Source

PROPRIOCEPTION = re.compile(r"robot\d+_(eef_pos|eef_quat|gripper_qpos)")
"""What robomimic's own configs take as the state."""
ROWS = ("actions", "rewards", "dones")


def open_robomimic(path: Path, choices: Choices) -> Source:
    """Opens a file of demonstrations. Raises DataError if it has another layout, lacks a frame rate or task, or its arrays do not fit."""
    with opened(path) as file:
        if "data" not in file or not hasattr(file["data"], "keys"):
            raise DataError(f"{path} has no group 'data', as robomimic's files have; its top level is {', '.join(file) or 'empty'}")
        data = file["data"]
        names = sorted((name for name in data if hasattr(data[name], "keys")), key=_natural)
        numbers = choices.numbers(range(len(names)))
        names = [names[number] for number in numbers]
        demonstrations = [_arrays(path, name, data[name]) for name in names]
        tasks = [_task(data[name].attrs, data.attrs, path) for name in names]
        settings = object_of(data.attrs.get("env_args"), f"{path}, env_args").get("env_kwargs", {})
        masks = {mask: set(map(text_of, file["mask"][mask][()])) for mask in file["mask"]} if "mask" in file else {}
        rewards = [np.asarray(data[name]["rewards"]) if "rewards" in data[name] else None for name in names]
    if not demonstrations:
        raise DataError(f"{path} has no demonstration in its group 'data'")
    first = next((each for each in demonstrations if any(shape[0] for shape in each.shapes.values())), demonstrations[0])
    layout = _layout(first, choices)
    settings = settings if isinstance(settings, dict) else {}
    rate = settings.get("control_freq")
    fps = choices.rate(rate if isinstance(rate, int | float) else None, who=str(path), hint=" (robosuite's usual rate is 20)")
    outcomes = Outcomes(_successes(rewards, settings))

    def entry(number: int) -> Entry:
        place = numbers.index(number)
        name, arrays, task = names[place], demonstrations[place], tasks[place]
        length = layout.check(arrays, first)
        _check_rows(arrays, length)
        words = choices.words(task, who=f"{path}, {name}") if length else ""
        facts = {"source": name, **{f"mask_{mask}": name in members for mask, members in masks.items()}, **outcomes.facts(place)}
        read = partial(_recording, arrays, layout, words, facts, outcomes.columns(place, length), choices)
        return Entry(number, f"{path.name}, {name}", length, read)

    entries = list(choices.each(numbers, entry).values())
    success = "from sparse rewards" if outcomes.successes[0] is not None else "not known"
    notes = [*layout.notes(first, elsewhere=ROWS), f"success: {success}"]
    return Source("HDF5, robomimic's layout", path, fps, tuple(layout.images.values()), entries, notes, _robot(settings))


def _natural(name: str) -> tuple[int, str]:
    """Returns a key that sorts demo_2 before demo_10."""
    return int((re.search(r"\d+$", name) or [-1])[0]), name


def _arrays(path: Path, name: str, demonstration: Any) -> Arrays:
    """Returns the arrays of a demonstration: `obs/KEY` by KEY, and what lies beside `obs`."""
    observations = datasets_in(demonstration["obs"]) if "obs" in demonstration else {}
    return arrays_of(path, f"{path.name}, {name}", {**datasets_in(demonstration), **observations})


def _layout(first: Arrays, choices: Choices) -> Layout:
    observed = [key for key in first.shapes if key not in (*ROWS, "states")]
    numbers = [key for key in observed if first.is_vector(key) and not key.startswith("object")]
    return Layout.choose(
        first,
        choices,
        images=[key for key in observed if first.is_image(key)],
        state=[key for key in numbers if PROPRIOCEPTION.fullmatch(key)] or numbers,
        action=["actions"] if "actions" in first.shapes else [],
    )


def _check_rows(arrays: Arrays, length: int) -> None:
    """Raises DataError if rewards or dones are not one a frame."""
    for key in ("rewards", "dones"):
        if key in arrays.shapes and (arrays.shapes[key] != (length,) or not arrays.is_vector(key)):
            shape = arrays.shapes[key]
            raise DataError(f"{arrays.name}: '{key}' has the shape {shape}, expected {count_noun(length, 'number')}, one a frame")


def _task(own: Mapping[str, Any], common: Mapping[str, Any], path: Path) -> str:
    """Returns the instruction where LIBERO and others keep it; "" where there is none."""
    for attributes in (own, common):
        if text := text_of(attributes.get("language_instruction")):
            return text
    words = object_of(common.get("problem_info"), f"{path}, problem_info").get("language_instruction", "")
    return words[0] if isinstance(words, list) and words and isinstance(words[0], str) else words if isinstance(words, str) else ""


def _successes(rewards: Sequence[Shaped[np.ndarray, "..."] | None], settings: Mapping[str, Any]) -> list[bool | None]:
    """Returns whether each demonstration has a reward above 0, if rewards are sparse and at least one has; else None for all."""
    good = [each is not None and bool(np.any(np.asarray(each) > 0)) for each in rewards]
    return [*good] if settings.get("reward_shaping") is False and any(good) else [None] * len(good)


def _robot(settings: Mapping[str, Any]) -> str | None:
    robots = settings.get("robots")
    names = [robots] if isinstance(robots, str) else robots if isinstance(robots, list) else []
    return "_".join(str(name).lower() for name in names) or None


def _recording(
    arrays: Arrays, layout: Layout, task: str, facts: Mapping[str, Any], columns: Mapping[str, np.ndarray], choices: Choices
) -> Recording:
    length = arrays.shapes[layout.keys[0]][0]
    rows = {f"next.{name}": key for name, key in (("reward", "rewards"), ("done", "dones")) if key in arrays.shapes}
    kinds = {"rewards": np.float32, "dones": bool}
    return Recording(
        task=task,
        state=layout.vectors(arrays, layout.state, length),
        action=layout.vectors(arrays, layout.action, length),
        frames=layout.frames(arrays, length, choices),
        columns={**{name: np.asarray(arrays.read(key, 0, length)).astype(kinds[key]) for name, key in rows.items()}, **columns},
        facts=facts,
        names=layout.names(arrays),
    )
