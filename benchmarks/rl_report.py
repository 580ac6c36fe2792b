"""The tables and figures of `rl_study.py`: success against decisions, differences from the sparse reward by seed, cost, and attempts that
fooled the reward model. Nothing here simulates or trains.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from milepost.core import atomic_path
from milepost.figures.style import png, quiet

MARKS = ("<!-- tables -->", "<!-- end of tables -->")
T95 = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228)
"""Quantiles 0.975 of Student's t, for 1, 2, ... degrees of freedom; above ten, the last one is a little too wide."""
FAR, AHEAD = 0.8, 0.3
"""An attempt without success fooled somebody if the model ends at FAR or above; the model itself erred if it ends AHEAD of the truth."""
LOOK = {
    "sparse": ("#5B5B5B", "--"), "oracle": ("#0B3C5D", "-"), "true": ("#56B4E9", "-"), "sarm": ("#009E73", "-"),
    "sarm-wide": ("#CC79A7", "-"), "clock": ("#B0B0B0", ":"), "sarm-absolute": ("#D55E00", "-"), "true-absolute": ("#E69F00", "--"),
}  # fmt: skip
Lines = Sequence[Mapping[str, Any]]


def area(line: Mapping[str, Any]) -> float:
    """Returns the mean success over the evaluations of a run: the area under its curve, in [0, 1]."""
    return float(np.mean([rate for _, rate, _ in line["points"]]))


def arrival(line: Mapping[str, Any], rate: float = 0.5) -> float:
    """Returns the decisions after which a run first succeeded in this proportion of the attempts; infinity for never."""
    return next((float(steps) for steps, success, _ in line["points"] if success >= rate), float("inf"))


def mean_with_interval(values: Sequence[float]) -> tuple[float, float, float]:
    """Returns the mean, and its 95 % interval by Student's t over the seeds; NaN where one seed says nothing of the spread."""
    numbers = np.array(values, dtype=float)
    if len(numbers) < 2:
        return float(numbers.mean()), float("nan"), float("nan")
    reach = T95[min(len(numbers) - 2, len(T95) - 1)] * numbers.std(ddof=1) / np.sqrt(len(numbers))
    return float(numbers.mean()), float(numbers.mean() - reach), float(numbers.mean() + reach)


def paired(lines: Lines, condition: str, base: str, of: Callable[[Mapping[str, Any]], float] = area) -> list[float]:
    """Returns how much a condition has more than another, of each seed that has both, in one task."""
    by_seed = {name: {line["seed"]: of(line) for line in lines if line["condition"] == name} for name in (condition, base)}
    return [by_seed[condition][seed] - by_seed[base][seed] for seed in sorted(by_seed[condition].keys() & by_seed[base].keys())]


def words(estimate: tuple[float, float, float], *, signed: bool = False) -> str:
    """Writes a mean with its interval; bold where the interval of a difference leaves out 0."""
    value, low, high = estimate
    text = f"{value:+.2f}" if signed else f"{value:.2f}"
    if np.isnan(low):
        return f"{text} (1 seed)"
    text += f" [{low:+.2f}, {high:+.2f}]" if signed else f" [{max(low, 0):.2f}, {min(high, 1):.2f}]"
    return f"**{text}**" if signed and low * high > 0 else text


def markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    return "\n".join("| " + " | ".join(line) + " |" for line in (header, ["---"] * len(header), *rows)) + "\n"


def conditions(lines: Lines) -> list[str]:
    """Returns the conditions that are there, in the order of the study."""
    there = {line["condition"] for line in lines}
    return [name for name in LOOK if name in there] + sorted(there - LOOK.keys())


def success_table(lines: Lines) -> str:
    """One row a condition: area under the curve, its difference from `sparse` by seed, arrival at half, success at the end."""
    rows = []
    for name in conditions(lines):
        own = [line for line in lines if line["condition"] == name]
        steps = sorted(arrival(line) for line in own)
        half = ", ".join("never" if np.isinf(each) else f"{each / 1000:g}" for each in steps)
        more = paired(lines, name, "sparse")
        gap = words(mean_with_interval(more), signed=True) if more and name != "sparse" else ""
        end = words(mean_with_interval([float(np.mean(line["success"])) for line in own]))
        rows.append((name, str(len(own)), words(mean_with_interval([area(line) for line in own])), gap, half, end))
    return markdown(("condition", "seeds", "area", "area minus sparse", "thousand decisions to half, by seed", "success at the end"), rows)


def cost_table(lines: Lines) -> str:
    """One row a condition: processor milliseconds of a decision, and minutes of a run."""
    rows = []
    for name in conditions(lines):
        own = [line for line in lines if line["condition"] == name]
        env, sac, wall = (np.median([line[key] for line in own]) for key in ("env_ms", "sac_ms", "wall_s"))
        rows.append((name, f"{env:.1f}", f"{sac:.1f}", f"{env + sac:.1f}", f"{wall / 60:.1f}"))
    return markdown(("condition", "environment and reward, ms", "SAC, ms", "together, ms", "a run by the clock, minutes"), rows)


def fooled_table(lines: Lines) -> str:
    """One row a condition: what the reward model says of the attempts that failed after training."""
    rows = []
    for name in conditions(lines):
        own = [line for line in lines if line["condition"] == name]
        keys = ("success", "progress", "model_end", "model_best")
        done, true, end, best = (np.concatenate([line[key] for line in own]) for key in keys)
        failed = done == 0
        cells = ("-", "-") if not failed.any() else (f"{true[failed].mean():.2f}", f"{end[failed].mean():.2f}")
        far, ahead = int((failed & (end >= FAR)).sum()), int((failed & (end - true >= AHEAD)).sum())
        top = f"{best[failed].max():.2f}" if failed.any() else "-"
        rows.append((name, f"{int(failed.sum())} of {len(done)}", *cells, top, str(far), str(ahead)))
    counts = (f"SARM ends >= {FAR}", f"SARM ends {AHEAD} ahead of the truth")
    return markdown(("condition", "failed", "true progress", "SARM's progress", "SARM's highest", *counts), rows)


def tables(lines: Lines) -> str:
    """Returns every table, task by task."""
    parts = []
    for task in dict.fromkeys(line["task"] for line in lines):
        own = [line for line in lines if line["task"] == task]
        parts += [f"### {task}, {own[0]['steps']:,} decisions\n", success_table(own)]
        parts += ["Attempts that failed after training:\n", fooled_table(own)]
    return "\n".join([*parts, "### Cost of a decision\n", cost_table(lines)]) if lines else "No run is finished yet.\n"


def tripwire_table(folder: Path) -> str:
    """What the tripwires say of the attempts that fooled SARM most, and of demonstrations; nothing if they were not asked."""
    path = folder / "tripwires.json"
    if not path.is_file():
        return ""
    keys = ("high", "still", "frozen", "unfamiliar", "any")
    rows = [(row["task"], row["attempts"], *(str(row[key]) for key in keys)) for row in json.loads(path.read_text())]
    header = ("task", "attempts of", "with progress of 0.5 or more", "`still`", "`frozen`", "`unfamiliar`", "any wire")
    return f"### What the tripwires say\n\n{markdown(header, rows)}"


def beyond_table(folder: Path) -> str:
    """What the reward models say of attempts that go anywhere; nothing if they were not asked."""
    path = folder / "beyond.json"
    if not path.is_file():
        return ""
    keys = ("progress", "truth", "far")
    rows = [(row["task"], row["model"], *(f"{row[key]:.3f}" for key in keys)) for row in json.loads(path.read_text())]
    header = ("task", "model", "its progress", "true progress", f"frames at {FAR} or above")
    return f"### Before any policy: attempts that go anywhere\n\n{markdown(header, rows)}"


def keep_worst(folder: Path, job: Mapping[str, Any], attempts: Sequence[Any]) -> None:
    """Keeps what the model saw of the failed attempt that it puts highest, if that is half way or more."""
    failed = [each for each in attempts if not each.success and each.curve[-1] >= 0.5]
    if not failed:
        return
    worst = max(failed, key=lambda each: each.curve[-1])
    path = folder / "worst" / "-".join(str(job[key]) for key in ("task", "condition", "seed"))
    path.parent.mkdir(exist_ok=True)
    with atomic_path(path.with_suffix(".npz")) as temporary, temporary.open("wb") as file:
        images, states = np.stack(worst.images), np.array(worst.states, dtype=np.float32)
        np.savez_compressed(file, images=images, states=states, curve=np.array(worst.curve), progress=worst.progress)


def strip(path: Path, count: int = 8) -> Figure:
    """Draws an attempt of `keep_worst`: so many of its images, with the model's progress over each."""
    with np.load(path, allow_pickle=False) as file:
        images, curve, true = file["images"], file["curve"], float(file["progress"])
    figure = Figure(figsize=(1.4 * count, 1.9), dpi=110, layout="constrained")
    for ax, place in zip(figure.subplots(1, count), np.linspace(0, len(images) - 1, count).round().astype(int), strict=True):
        ax.imshow(images[place])
        ax.set_axis_off()
        ax.set_title(f"{place}: {curve[place]:.2f}", fontsize=8)
    figure.suptitle(f"{path.stem}: no success; SARM ends at {curve[-1]:.2f}, the truth at {true:.2f}", fontsize=9)
    return figure


def curves(lines: Lines) -> Figure:
    """Draws success against decisions, one panel a task: the mean over the seeds; from three on, its interval."""
    tasks = list(dict.fromkeys(line["task"] for line in lines))
    figure = Figure(figsize=(5.2 * len(tasks), 3.4), dpi=110, layout="constrained")
    for ax, task in zip(np.atleast_1d(figure.subplots(1, len(tasks), sharey=True)), tasks, strict=True):
        own = [line for line in lines if line["task"] == task]
        for name in conditions(own):
            _curve(ax, [line for line in own if line["condition"] == name], name)
        ax.set_title(task, fontsize=9)
        ax.set_xlabel("decisions", fontsize=8)
        quiet(ax)
        ax.set_ylim(-0.03, 1.03)
    figure.axes[0].set_ylabel("success of the policy without noise", fontsize=8)
    by_name = {label: handle for ax in figure.axes for handle, label in zip(*ax.get_legend_handles_labels(), strict=True)}
    figure.legend(by_name.values(), by_name.keys(), fontsize=7.5, loc="outside lower center", ncols=4, frameon=False)
    return figure


SHADED = ("sparse", "true", "sarm-wide")
"""Conditions whose interval is drawn; more of them cover each other."""


def _curve(ax: Any, runs: Lines, name: str) -> None:
    colour, style = LOOK.get(name, ("#000000", "-"))
    steps = [point[0] for point in runs[0]["points"]]
    estimates = np.array([mean_with_interval([line["points"][place][1] for line in runs]) for place in range(len(steps))])
    ax.plot(steps, estimates[:, 0], style, color=colour, linewidth=1.6, label=name)
    if len(runs) > 2 and name in SHADED:  # of two seeds the interval is everything
        ax.fill_between(steps, np.clip(estimates[:, 1], 0, 1), np.clip(estimates[:, 2], 0, 1), color=colour, alpha=0.12, linewidth=0)


def write(lines: Lines, folder: Path, *, total: int, page: Path | None, figures: Path | None) -> None:
    """Prints the tables, or writes them between the marks of a page; draws curves, and each task's worst attempt, into a folder."""
    text = f"{len(lines)} of {total} runs.\n\n{tables(lines)}\n{beyond_table(folder)}\n{tripwire_table(folder)}"
    if page is None:
        print(text)
    else:
        before, rest = page.read_text().split(MARKS[0])
        page.write_text(f"{before}{MARKS[0]}\n\n{text}\n{MARKS[1]}{rest.split(MARKS[1])[1]}")
    if figures is not None and lines:
        figures.mkdir(parents=True, exist_ok=True)
        (figures / "rl_curves.png").write_bytes(png(curves(lines)))
        for task in dict.fromkeys(line["task"] for line in lines):
            kept_files = sorted((folder / "worst").glob(f"{task}-*.npz"), key=_end_of)
            if kept_files:
                (figures / f"rl_worst_{task}.png").write_bytes(png(strip(kept_files[-1])))


def _end_of(path: Path) -> float:
    """Returns how far the model's end is ahead of the truth in a file of `keep_worst`."""
    with np.load(path, allow_pickle=False) as file:
        return float(file["curve"][-1]) - float(file["progress"])
