"""The study of docs/rabc_study.md: does RA-BC help on mixed-quality demonstrations in simulation, and is it the weights that do it?

    python benchmarks/rabc_study.py FOLDER [--pause-while FILE]      run what is not in FOLDER/runs.jsonl yet; stop it and start it at will
    python benchmarks/rabc_study.py FOLDER --report [--page docs/rabc_study.md] [--figures docs/figures]

Every finished policy is one line. The most telling cells come first, seed by seed. The study's seeds are 5 to 9; settings were chosen on
seed 100, which is not in it, and a fault of the demonstrations was found on seeds 100 to 102 (see the page).
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure

from milepost.figures.style import CURVE_STYLES, FAINT, FULL, INK, TRUTH_STYLE, png, quiet
from milepost.metrics.evaluation import Estimate
from milepost.sim.compare.arms import ARMS
from milepost.sim.compare.config import CompareConfig
from milepost.sim.compare.experiment import Pools, jobs, mixture, read_lines, run
from milepost.sim.compare.table import cells, points, rates, recovered

TASKS = ("pick-place-v3", "shelf-place-v3", "peg-insert-side-v3", "assembly-v3")
SEEDS = (5, 6, 7, 8, 9)
SHARES = (0.0, 0.3, 0.6, 0.8, 1.0)
MARKS = ("<!-- tables -->", "<!-- end of tables -->")
CLEAN = ("uniform", "rabc-true", "rabc-sarm", "success+short")
CORE = (*CLEAN, "permuted")
LOOK = {
    "uniform": ("#5B5B5B", "o"), "permuted": ("#B0B0B0", "x"), "short": ("#E69F00", "v"), "success": ("#CC79A7", "^"),
    "success+short": ("#D55E00", "s"), "rabc-true": ("#0B3C5D", "D"), "rabc-sarm": ("#009E73", "o"), "rabc-sarm-lerobot": ("#56B4E9", "P"),
}  # fmt: skip


def phases() -> Iterator[CompareConfig]:
    """In the order they are run."""
    for seed in SEEDS:
        yield CompareConfig(TASKS, shares=(0.8, 1.0), arms=CORE, seeds=(seed,))
        yield CompareConfig(TASKS, shares=(0.0,), arms=CLEAN, seeds=(seed,))
    yield CompareConfig(TASKS, shares=(0.8, 1.0), arms=tuple(ARMS), seeds=SEEDS)
    for share in (0.6, 0.3):
        yield CompareConfig(TASKS, shares=(share,), arms=CLEAN, seeds=SEEDS)


def waiting(file: Path | None) -> Callable[[str], Callable[[int, int], None]]:
    """A progress callback that prints, and waits while a file is there."""

    def bar(name: str) -> Callable[[int, int], None]:
        def tick(done: int, total: int) -> None:
            while file is not None and file.exists():
                time.sleep(5)
            print(time.strftime("%H:%M:%S"), name, done, "of", total, flush=True)

        return tick

    return bar


# Tables


def markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def overall(lines: Sequence[Mapping[str, Any]], share: float) -> str:
    """Every arm at a share, mean over the tasks."""
    rows = []
    for arm, (rate, gap) in rates(lines, share, list(ARMS)).items():
        weights = [line["mean_weight"] for line in lines if line["share"] == share and line["arm"] == arm]
        gain = "" if arm == "uniform" else points(gap, signed=True)
        rows.append((arm, str(rate.episodes), f"{np.mean(weights):.2f}", points(rate), gain))
    return markdown(("arm", "cells", "mean weight", "success, %", "minus uniform"), rows)


def by_task(lines: Sequence[Mapping[str, Any]], share: float) -> str:
    """Success of every arm by task, and what SARM's weights gain there."""
    rows = []
    for task in TASKS:
        own = [line for line in lines if line["task"] == task]
        found = rates(own, share, list(ARMS))
        if "rabc-sarm" in found:
            cell = [f"{100 * found[arm][0].value:.0f}" if arm in found else "" for arm in ARMS]
            rows.append((task, *cell, points(found["rabc-sarm"][1], signed=True)))
    return markdown(("task", *ARMS, "rabc-sarm minus uniform"), rows)


def against(lines: Sequence[Mapping[str, Any]], base: str) -> str:
    """SARM's weights minus another arm, by share."""
    rows = []
    for share in SHARES:
        found = rates(lines, share, ["rabc-sarm"], base=base)
        if "rabc-sarm" in found:
            rate, gap = found["rabc-sarm"]
            rows.append((f"{share:.0%}", str(rate.episodes), points(gap, signed=True)))
    return markdown(("bad", "cells", f"rabc-sarm minus {base}"), rows)


def by_seed(lines: Sequence[Mapping[str, Any]], share: float) -> str:
    """Every cell: how far apart the seeds are."""
    rows = []
    for task in TASKS:
        own = [line for line in lines if line["task"] == task and line["share"] == share]
        for arm in CLEAN:
            if not any(line["arm"] == arm for line in own):
                continue
            rate = {line["seed"]: f"{100 * np.mean(line['success']):.0f}" for line in own if line["arm"] == arm}
            rows.append((task, arm, *(rate.get(seed, "") for seed in SEEDS)))
    return markdown(("task", "arm", *(f"seed {seed}" for seed in SEEDS)), rows)


def curves(folder: Path) -> str:
    """How right SARM's curves are, and what its weights give to each kind, over the demonstrations that are there."""
    config = next(phases())
    rows = []
    for task in TASKS:
        errors, means = [], {}
        for path in sorted(folder.glob(f"demonstrations-{task}-*-{Pools(folder, config.pool).mark}.npz")):
            pool = Pools(folder, config.pool).get(task, int(path.name.split("-")[-2]))
            errors.append(np.abs(pool.progress["sarm"] - pool.progress["true"]).mean())
            _, mix = mixture(pool, config.pool.episodes, 0.8)
            kinds = np.array(pool.kind)[pool.mix(config.pool.episodes, 0.8)][mix.episode]
            for name in ("true", "sarm"):
                weight = ARMS[f"rabc-{name}"](mix, config.rabc, np.random.default_rng(0))
                for kind in np.unique(kinds):
                    means.setdefault((kind, name), []).append(weight[kinds == kind].mean())
        if errors:
            kinds = sorted({kind for kind, _ in means})
            cell = [f"{np.mean(means[kind, 'true']):.2f} / {np.mean(means[kind, 'sarm']):.2f}" for kind in kinds]
            rows.append((task, str(len(errors)), f"{np.mean(errors):.3f}", *cell))
    return markdown(("task", "seeds", "error of progress", *(kinds if rows else ())), rows)


def report(folder: Path) -> str:
    """Every table of docs/rabc_study.md."""
    lines = finished(folder)
    parts = [f"{len(lines)} of {wanted()} policies, {np.mean([line['train_s'] + line['trial_s'] for line in lines]):.0f} s each.\n"]
    parts += ["SARM's weights against the filters, against LeRobot's rule on the same curves, and against themselves permuted:\n"]
    parts += [against(lines, base) for base in ("success+short", "success", "rabc-sarm-lerobot", "permuted")]
    for share in SHARES:
        if any(line["share"] == share for line in lines):
            part = recovered(lines, share)
            parts += [f"### {share:.0%} bad\n", overall(lines, share)]
            if part is not None and part.low > -10 and share > 0:
                parts.append(f"`rabc-sarm` has {points(part)} % of what `rabc-true` gains.\n")
            parts += ["By task, success in %:\n", by_task(lines, share), "By seed, success in %:\n", by_seed(lines, share)]
    parts += ["### Curves and weights\n", "At 80 % bad, mean weight by kind of demonstration, true progress / SARM's:\n", curves(folder)]
    return "\n".join(parts)


def finished(folder: Path) -> list[dict[str, Any]]:
    """The lines of this study; those of other settings in the same file are not."""
    key = next(phases()).key()
    return [line for line in read_lines(folder / "runs.jsonl") if line["key"] == key]


def wanted() -> int:
    return len({job for config in phases() for job in jobs(config)})


def write_page(page: Path, tables: str) -> None:
    """Put the tables between the page's two marks."""
    before, rest = page.read_text().split(MARKS[0])
    page.write_text(f"{before}{MARKS[0]}\n\n{tables}\n{MARKS[1]}{rest.split(MARKS[1])[1]}")


def draw(folder: Path, figures: Path) -> None:
    lines = finished(folder)
    figures.mkdir(parents=True, exist_ok=True)
    for name, figure in (("rabc_gains", gains(lines)), ("rabc_shares", shares(lines)), ("rabc_curves", examples(folder))):
        (figures / f"{name}.png").write_bytes(png(figure))


# Figures


def gains(lines: Sequence[Mapping[str, Any]]) -> Figure:
    """Points gained over uniform by arm, at 80 and 100 % bad, each task a faint mark, the mean with its interval; arms run on all tasks."""
    figure = Figure(figsize=(9, 3.0), dpi=110, layout="constrained")
    for ax, share in zip(figure.subplots(1, 2, sharey=True), (0.8, 1.0), strict=True):
        arms = [arm for arm in ARMS if arm != "uniform"]
        found = rates(lines, share, arms)
        for place, arm in enumerate(arms):
            if arm in found and len(cells(lines, share, ["uniform", arm])) == len(TASKS):
                _bar(ax, place, found[arm][1], arm)
                for task in TASKS:
                    own = rates([line for line in lines if line["task"] == task], share, [arm])
                    if arm in own:
                        ax.plot(100 * own[arm][1].value, place + 0.22, "|", color="#888888", markersize=6)
        quiet(ax)
        ax.axvline(0, color=INK, linewidth=0.8)
        ax.set_yticks(range(len(arms)), arms, fontsize=8)
        ax.set_title(f"{share:.0%} of the demonstrations are bad", fontsize=9)
        ax.set_xlabel("points of success gained over uniform behaviour cloning", fontsize=8)
        ax.grid(axis="x", color=FAINT, linewidth=0.5)
        ax.grid(visible=False, axis="y")
        ax.invert_yaxis() if share == 0.8 else None
    return figure


def _bar(ax: Any, place: int, gap: Estimate, arm: str) -> None:
    colour, mark = LOOK[arm]
    ax.plot([100 * gap.low, 100 * gap.high], [place, place], color=colour, linewidth=2)
    ax.plot(100 * gap.value, place, mark, color=colour, markersize=7)


def shares(lines: Sequence[Mapping[str, Any]]) -> Figure:
    """Success over the share of bad demonstrations: each task, and their mean."""
    figure = Figure(figsize=(11, 2.9), dpi=110, layout="constrained")
    for ax, task in zip(figure.subplots(1, len(TASKS) + 1, sharey=True), (*TASKS, None), strict=True):
        own = [line for line in lines if task in (None, line["task"])]
        for arm in CLEAN:
            tables = {share: _tables(own, share, arm) for share in SHARES}
            at = [(share, 100 * float(np.mean([np.mean(table) for table in some]))) for share, some in tables.items() if some]
            if at:
                colour, mark = LOOK[arm]
                ax.plot([100 * share for share, _ in at], [rate for _, rate in at], f"-{mark}", color=colour, markersize=4, label=arm)
        ax.set_title(task or "mean of the tasks", fontsize=9)
        ax.set_xlabel("bad demonstrations, %", fontsize=8)
        quiet(ax)
        ax.set(xlim=(-4, 104), ylim=(-3, 103))
    figure.axes[0].set_ylabel("success, %", fontsize=8)
    figure.legend(*figure.axes[-1].get_legend_handles_labels(), fontsize=7.5, loc="outside lower center", ncols=4, frameon=False)
    return figure


def examples(folder: Path) -> Figure:
    """One demonstration of each bad kind of the first task and seed: both curves, and the weights SARM's gives."""
    config = next(phases())
    pool = Pools(folder, config.pool).get(TASKS[0], SEEDS[0])
    _, mix = mixture(pool, config.pool.episodes, 0.8)
    kinds = [pool.kind[e] for e in pool.mix(config.pool.episodes, 0.8)]
    weight = ARMS["rabc-sarm"](mix, config.rabc, np.random.default_rng(0))
    names = ["expert", *(kind for kind in dict.fromkeys(kinds) if kind != "expert")]
    figure = Figure(figsize=(12, 2.5), dpi=110, layout="constrained")
    for ax, kind in zip(figure.subplots(1, len(names), sharey=True), names, strict=True):
        rows = mix.episode == kinds.index(kind)
        time_s = np.arange(rows.sum()) / 20
        ax.fill_between(time_s, weight[rows], step="mid", color=FULL, alpha=0.6, linewidth=0, label="weight by SARM's curve")
        ax.plot(time_s, mix.progress["true"][rows], label="true progress", **TRUTH_STYLE)
        ax.plot(time_s, mix.progress["sarm"][rows], linewidth=1.6, label="SARM's progress", **CURVE_STYLES[0])
        ax.set_title(kind.replace("_", " "), fontsize=9)
        ax.set_xlabel("time (s)", fontsize=8)
        quiet(ax)
    figure.legend(*figure.axes[0].get_legend_handles_labels(), fontsize=7.5, loc="outside lower center", ncols=3, frameon=False)
    return figure


def _tables(lines: Sequence[Mapping[str, Any]], share: float, arm: str) -> list[np.ndarray]:
    """One array a task."""
    return [np.concatenate([table.ravel() for table in seeds]) for seeds in cells(lines, share, [arm]).values()]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--pause-while", type=Path)
    parser.add_argument("--report", action="store_true")
    parser.add_argument("--page", type=Path, help="write the tables between the marks of this page instead of printing them")
    parser.add_argument("--figures", type=Path, help="draw the figures into this folder")
    args = parser.parse_args()
    if args.report:
        tables = report(args.folder)
        write_page(args.page, tables) if args.page else print(tables)
        if args.figures:
            draw(args.folder, args.figures)
        return
    torch.set_num_threads(1)
    for config in phases():
        run(config, args.folder, on_progress=waiting(args.pause_while))


if __name__ == "__main__":
    main()
