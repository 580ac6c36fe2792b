"""Compute sample weights from progress, and report their effect.

Read the report before you train a policy.
"""

from __future__ import annotations

import dataclasses
import json as json_module
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import tyro

from milepost import datasets, figures, progress, weights
from milepost.cli.console import say, warn, warn_all
from milepost.cli.progress_io import require_varied, warn_of_missing_letters
from milepost.cli.several_datasets import (
    Answer,
    DatasetsFile,
    MoreDatasets,
    are_several,
    each_dataset,
    names_of,
    print_json,
    reason_of,
    require_places,
    subfolder,
    with_listed,
)
from milepost.cli.weigh_report import WeightReport, as_json, show
from milepost.core import (
    DataError,
    DataWarning,
    UnreadableError,
    bare_reason,
    count_noun,
    output_lock,
    real_path,
    require_cameras,
    require_writable,
    shortlist,
    success_in,
)

IN_PLACE = "Use --preset study or --kappa"
SPANS = 6
"""Dropped spans drawn."""


@dataclass(frozen=True)
class Args:
    dataset: Annotated[str | None, tyro.conf.Positional, tyro.conf.arg(metavar="DATASET")] = None
    """LeRobot dataset. It is needed for tasks, qualities and images of dropped frames; its progress file is found and checked. Optional
    with --progress. Several datasets are weighed one after the other, each by itself."""
    more_datasets: MoreDatasets = ()
    """Further datasets."""
    datasets_file: DatasetsFile = None
    """A text file with one dataset a line, as many as there are; folders are looked for beside it, and "-" is standard input."""
    progress: Annotated[Path | None, tyro.conf.arg(aliases=["--progress-file"])] = None
    """Progress file; default: the one beside the dataset. With several datasets: the folder that label --output-path has filled."""
    output_path: Path | None = None
    """Where to write the weights; default: weights.parquet beside the progress file. With several datasets: a folder, in which each has a
    folder of its own name."""
    head_mode: Literal["sparse", "dense"] = "sparse"
    preset: Literal["study"] | None = None
    """study: the setting of docs/rabc_study.md, which gained more than the default rule: --end rescale --ramp linear --kappa-pace 1
    --smooth 5. An option that you give yourself replaces the preset's."""
    rabc: tyro.conf.OmitArgPrefixes[weights.RabcConfig] = field(default_factory=weights.RabcConfig)
    """How progress becomes weights. The defaults are LeRobot's rule."""
    fps: float | None = None
    """Frames per second, for options in seconds; default: the dataset's."""
    figure: Path | None = None
    """Also draw the report into this PNG, SVG or PDF. With a dataset, images of dropped frames go into a second file beside it
    (FIGURE_dropped.png)."""
    camera_key: str | None = None
    """Camera of those images; default: the first."""
    revision: str | None = None
    dry_run: bool = False
    """Print the whole report, and which files would be written; write nothing."""
    overwrite: bool = False
    """Replace an output that another program made, or a figure that is not of this dataset; weights of an earlier `weigh` are always
    replaced."""
    json: bool = False


def rewritten(arguments: Sequence[str]) -> list[str]:
    """Returns the arguments with the options of `--preset` in front, without those that the user gives. ValueError for an option that was
    removed, and for a preset without effect.

    >>> rewritten(["towels", "--preset", "study", "--smooth", "9"])[:6]
    ['--end', 'rescale', '--ramp', 'linear', '--kappa-pace', '1']
    """
    arguments = with_listed(arguments)
    words = [word.partition("=")[0].replace("_", "-") for word in arguments]
    for name in weights.REMOVED:
        flag = f"--{name.replace('_', '-')}"
        if flag in words or flag.replace("--", "--no-") in words:
            raise ValueError(f"{flag} was removed: no study showed a gain. {IN_PLACE}")
    rule, preset = (_value_of(name, arguments, words) for name in ("--rule", "--preset"))
    if rule == "awr":
        raise ValueError(f"--rule awr was removed: no study showed a gain. {IN_PLACE}")
    if preset is None or preset not in weights.PRESETS:
        return list(arguments)
    if rule == "uniform":
        raise ValueError(f"--preset {preset} does nothing beside --rule uniform: every frame weighs 1 there; leave one of them out")
    names = [word.removeprefix("--").replace("-", "_") for word in words if word.startswith("--")]
    options = weights.preset_options(preset, names)
    return [*weights.flags(weights.RabcConfig(**options)).split(), *arguments]


def _value_of(flag: str, arguments: Sequence[str], words: Sequence[str]) -> str | None:
    """Returns the last value of a flag. words: the arguments without the part after "="."""
    values = [
        argument.partition("=")[2] if "=" in argument else "".join(arguments[place + 1 : place + 2])
        for place, (argument, word) in enumerate(zip(arguments, words, strict=True))
        if word == flag
    ]
    return values[-1] if values else None


def main(args: Args) -> int:
    """Computes, writes and reports the weights."""
    return _weigh_datasets(args) if are_several(args) else _weigh(args, args.dataset, print_json)


def _weigh_datasets(args: Args) -> int:
    """Weighs the datasets one after the other. The names are checked before, and where the outputs of each lie."""
    for flag, value in (("--figure", args.figure), ("--camera-key", args.camera_key)):
        if value is not None:
            raise ValueError(f"{flag} is for one dataset, and these are several: draw the figure of one in a command of its own")
    names, places, left_out = names_of(args), dict[str, Path](), dict[str, str]()
    if args.progress is not None and not args.progress.is_dir():
        raise DataError(f"{args.progress} is no folder: for several datasets --progress is the folder that label --output-path has filled")
    for name in names:
        try:
            places[name] = subfolder(datasets.open_dataset(name, revision=args.revision))
        except (DataError, OSError) as error:
            left_out[name] = reason_of(error)
            warn(f"before the work begins: {name} is left out: {left_out[name]}")
    if args.output_path is not None:
        require_places(places, args.output_path)

    def work(name: str, answer: Answer) -> int:
        output, file = args.output_path, args.progress
        if output is not None:
            if not args.dry_run:
                (output / places[name]).mkdir(parents=True, exist_ok=True)
            output = output / places[name] / "weights.parquet"
        if file is not None:
            file = progress.chosen_progress(sorted((file / places[name]).glob("*_progress.parquet")), file / places[name])[0]
        return _weigh(dataclasses.replace(args, output_path=output, progress=file), name, answer)

    return each_dataset(args, names, work, left_out)


def _weigh(args: Args, name: str | None, answer: Answer) -> int:
    """Computes, writes and reports the weights of one dataset. answer: takes what `--json` prints."""
    args = dataclasses.replace(args, dataset=name, more_datasets=(), datasets_file=None)
    _require_sense(args)
    dataset = None if args.dataset is None else datasets.open_dataset(args.dataset, revision=args.revision)
    if dataset is None:
        path, missing = datasets.find_file(Path(args.progress or "")), 0
        progress_table = progress.read_progress(path)
    else:
        progress_file = progress.find_progress(dataset, args.progress)
        path, progress_table, missing = progress_file.path, progress_file.table, progress_file.missing
        warn_all(progress_file.warnings)
        require_cameras([] if args.camera_key is None else [args.camera_key], dataset.cameras, hint="choose with --camera-key")
    output = args.output_path or path.with_name("weights.parquet")
    if args.output_path is None and datasets.in_cache(output.absolute()):
        reason = "a Hub dataset is never written into" if dataset is None else dataset.files.never_written
        raise DataError(f"{reason}: give --output-path")
    if real_path(output) == real_path(path):
        raise DataError(f"{output} is the progress file itself; choose another --output-path")
    if output.exists() and not args.overwrite and not weights.is_weights_file(output):
        raise DataError(f"{output} was not written by milepost weigh; use --overwrite or another --output-path")
    source = dataset or path
    if args.figure is not None:
        instead = "choose another --figure, or use --overwrite"
        datasets.require_own_drawings(_figures(args.figure), source, overwrite=args.overwrite, instead=instead)
    report = examine(progress_table, args, dataset)
    drawings: list[Path] = []
    undrawn: list[str] = []
    if not args.dry_run:
        with output_lock(output):
            settings = _settings(args, dataset, path, progress_table)
            weights.SampleWeights.of(report.result, head_mode=args.head_mode).save(output, report.result.config, settings)
        drawings, undrawn = draw(report, progress_table, args, dataset, source)
    remarks = [each.text for each in report.advice] + undrawn
    if missing and dataset is not None:
        remarks.append(_in_words_missing(missing, np.setdiff1d(dataset.meta.arrays.number, progress_table.episode_index), args.rabc))
    drawback = "" if report.better is None else weights.drawback(report.diagnosis, report.better[1])
    if args.json:
        remarks += [drawback] if drawback else []
        answer(as_json(report) | {"path": None if args.dry_run else str(output), "figures": list(map(str, drawings)), "warnings": remarks})
        return 1 if undrawn else 0
    show(report)
    warn_all(remarks)
    if report.better is not None:
        say(f"recommended: {weights.flags(report.better[0].config)}")
        warn_all([drawback] if drawback else [])
    if args.dry_run:
        files = [output, *(() if args.figure is None else (args.figure,))]
        say(f"nothing is written, because of --dry-run; without it: {', '.join(map(str, files))}")
        return 0
    say(f"weights: {output}")
    for figure in drawings:
        say(f"figure: {figure}")
    say(for_lerobot(report.result, path, args.head_mode))
    return 1 if undrawn else 0


def _settings(args: Args, dataset: datasets.LeRobotDataset | None, path: Path, progress_table: progress.ProgressTable) -> dict[str, str]:
    """Returns what the weights were made from, for their file. path: of the progress."""
    settings = {"progress_file": str(path), "head_mode": args.head_mode}
    if dataset is not None:
        return settings | {"dataset": dataset.name, "dataset_fingerprint": dataset.fingerprint}
    about = {key: progress_table.metadata.get(f"{progress.METADATA_PREFIX}{key}") for key in ("dataset", "dataset_fingerprint")}
    return settings | {key: value for key, value in about.items() if value}


def _in_words_missing(missing: int, absent: np.ndarray, config: weights.RabcConfig) -> str:
    """Returns what becomes of frames without a row in the progress file. absent: the episodes without any row there."""
    words = f"frames of the dataset without a row in the progress file: {missing}, each weighs {config.fallback_weight:g}"
    if len(absent):
        words += f"; no row at all is there of {count_noun(len(absent), 'episode')}: {shortlist(absent.tolist())}"
    return f"{words}; --fallback-weight 0 gives such frames no weight" if len(absent) and config.fallback_weight else words


def _figures(figure: Path) -> tuple[Path, Path]:
    """Returns the files of the report and of the dropped frames."""
    return figure, figure.with_name(f"{figure.stem}_dropped{figure.suffix}")


def _require_sense(args: Args) -> None:
    if args.figure is not None and args.figure.suffix.lower().removeprefix(".") not in figures.FORMATS:
        raise ValueError(f"--figure is a file ending in .{', .'.join(figures.FORMATS)}; got {args.figure}")
    if args.progress is None and args.dataset is None:
        raise DataError("give a dataset or --progress FILE")
    if args.fps is not None and not args.rabc.needs_fps:
        raise ValueError("--fps does nothing without an option in seconds (--kappa-duration-s, --max-duration-s)")
    if args.camera_key is not None and args.figure is None:
        raise ValueError("--camera-key does nothing without --figure")
    if args.figure is not None:
        require_writable(args.figure.parent)


def examine(progress_table: progress.ProgressTable, args: Args, dataset: datasets.LeRobotDataset | None) -> WeightReport:
    """Computes the weights and everything that is reported about them. DataError if no progress is known, it is constant, or every weight
    is 0."""
    value = progress_table.values(args.head_mode)
    require_varied(value, "weigh by")
    numbers, where = np.unique(progress_table.episode_index, return_inverse=True)
    notes = weights.ByEpisode.of({}) if dataset is None else notes_of(dataset, numbers)
    task_of = notes.each(lambda note: note.task)
    tasks = sorted(task_of.values_once)
    task = np.array([tasks.index(name) for name in task_of.values_once])[task_of.code][where] if notes else None
    fps = args.fps if args.fps is not None or dataset is None else dataset.fps

    def by(config: weights.RabcConfig) -> weights.WeightResult:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DataWarning)  # the advice says the same
            return weights.weigh(progress_table.index, progress_table.episode_index, value, config=config, task=task, fps=fps)

    result = by(args.rabc)
    if not result.weight.any():
        raise DataError("every frame weighs 0: nothing would be learnt; lower kappa, or loosen --max-duration-s and --min-final")
    groups = {
        "quality": weights.by_name(result, notes.each(lambda note: note.quality)),
        "task": weights.by_name(result, task_of),
    }
    diagnosis = weights.diagnose(result, value)
    advice = weights.advise(result, diagnosis, groups["task"], notes, _leave_out(args, dataset, result.unknown_episodes.tolist()))
    config = weights.recommended(args.rabc, advice)
    better = by(config) if config != args.rabc else None
    return WeightReport(
        result=result,
        diagnosis=diagnosis,
        groups={heading: members for heading, members in groups.items() if len(members) > 1},
        sweep=weights.sweep(result, notes) if args.rabc.rule == "rabc" else [],
        advice=advice,
        better=None if better is None else (better, weights.diagnose(better, value, result.delta)),
        notes=notes,
    )


def _leave_out(args: Args, dataset: datasets.LeRobotDataset | None, numbers: list[int]) -> str:
    """Returns the command that makes a dataset without these episodes; "" without a dataset, whose version decides."""
    return "" if dataset is None else datasets.leave_out_command(args.dataset or dataset.name, numbers, version=dataset.version)


def notes_of(dataset: datasets.LeRobotDataset, numbers: np.ndarray) -> weights.ByEpisode[weights.EpisodeInfo]:
    """Returns task, kind and success of these episodes, which rise. Rows are read only where meta/ does not have the success and the rows
    may have it."""
    meta = dataset.hints
    places = meta.arrays.places(numbers.tolist())
    (success, outcomes), (kind, kinds) = meta.fact("success"), meta.fact("kind")
    codes = {True: 0, False: 1, None: 2}
    outcome = np.array([codes[success_in({"success": value})] for value in outcomes])[success[places]]
    for place in np.flatnonzero(outcome == codes[None]).tolist():
        try:
            by_rows = dataset.episode(int(numbers[place])).success
        except UnreadableError:  # its weights are valid all the same; whether rows know the success is decided by the next episode
            continue
        if by_rows is None:
            break
        outcome[place] = codes[by_rows]
    joint, code = np.unique((meta.arrays.task[places] * len(kinds) + kind[places]) * len(codes) + outcome, return_inverse=True)
    words = ["" if value is None else str(value) for value in kinds]
    values = [
        weights.EpisodeInfo(next(iter(meta.arrays.tasks[task]), ""), words[kind_code], list(codes)[outcome_code])
        for task, kind_code, outcome_code in (
            (each // (len(kinds) * len(codes)), each // len(codes) % len(kinds), each % len(codes)) for each in joint.tolist()
        )
    ]
    return weights.ByEpisode(numbers, code.reshape(-1), tuple(values))


def draw(
    report: WeightReport,
    progress_table: progress.ProgressTable,
    args: Args,
    dataset: datasets.LeRobotDataset | None,
    source: datasets.LeRobotDataset | Path,
) -> tuple[list[Path], list[str]]:
    """Draws the figures. Returns their paths, and one message for each dropped span whose images cannot be read."""
    if args.figure is None:
        return [], []
    each = weights.by_episode(report.result)
    is_unknown = np.isin(each.episode_index, report.result.unknown_episodes)
    order = each.episode_index[np.lexsort((-each.mean, is_unknown))].tolist()
    rule = weights.flags(args.rabc) or "the default rule"
    title = f"{'' if dataset is None else dataset.name + ', '}chunk of {count_noun(args.rabc.chunk_size, 'frame')}: {rule}"
    drawings = {args.figure: figures.advice_figure(figures.AdviceView(title, report.result, report.sweep, report.groups, order))}
    spans, undrawn = ([], []) if dataset is None or not dataset.cameras else _dropped(report, progress_table, args, dataset)
    if spans:
        drawings[_figures(args.figure)[1]] = figures.dropped_figure(spans)
    for path, figure in drawings.items():
        form: figures.Format = path.suffix.lower().removeprefix(".")  # type: ignore[assignment]
        datasets.write_drawing(path, figures.figure_bytes(figure, form), source)
    warn_of_missing_letters({text for figure in drawings.values() for text in figures.texts_of(figure)})
    return list(drawings), undrawn


def _dropped(
    report: WeightReport, progress_table: progress.ProgressTable, args: Args, dataset: datasets.LeRobotDataset
) -> tuple[list[figures.DroppedSpan], list[str]]:
    """Returns the dropped spans with their images, and one message for each span whose images cannot be read."""
    spans, problems, camera = [], [], args.camera_key or dataset.cameras[0]
    for span in weights.dropped_spans(report.result, SPANS, report.notes):
        try:
            spans.append(_dropped_span(dataset, report, progress_table, camera, span.episode, (span.start, span.stop), args.head_mode))
        except UnreadableError as error:
            problems.append(f"dropped frames of episode {span.episode} are not drawn: {bare_reason(error, span.episode)}")
    return spans, problems


def _dropped_span(
    dataset: datasets.LeRobotDataset,
    report: WeightReport,
    progress_table: progress.ProgressTable,
    camera: str,
    number: int,
    rows: tuple[int, int],
    head: str,
) -> figures.DroppedSpan:
    episode, note = dataset.episode(number), report.notes[number]
    start, stop = rows[0] - episode.row, rows[1] - episode.row
    weight = np.full(episode.length, np.nan, dtype=np.float32)
    own = report.result.episode_index == number
    weight[report.result.index[own] - episode.row] = report.result.weight[own]
    at = figures.span_frames(start, stop)
    mean = float(np.nanmean(weight[start:stop]))
    title = f"episode {number}, {note.quality}: frames {start} to {stop - 1} ({(stop - start) / episode.fps:.1f} s) weigh {mean:.2f}"
    curve = progress_table.episode(number, episode.length, head)
    return figures.DroppedSpan(f"{title} · {note.task}", episode.fps, start, stop, curve, weight, episode.camera(camera)[np.array(at)], at)


def for_lerobot(result: weights.WeightResult, path: Path, head: str) -> str:
    """Returns one line that says how LeRobot's own training gets these weights."""
    config, one = result.config, result.one_kappa
    if not config.is_lerobots or one is None:
        return "in LeRobot: its own rule makes other weights from the progress file; docs/weights.md shows how its loop takes these"
    words = {"type": "rabc", "progress_path": str(path), "head_mode": head, "kappa": f"{one:.6g}"}
    if config.changed("epsilon"):
        words["epsilon"] = f"{config.epsilon:g}"
    if config.changed("fallback_weight"):
        words["extra_params"] = f"'{json_module.dumps({'fallback_weight': config.fallback_weight})}'"
    options = " ".join(f"--sample_weighting.{key}={value}" for key, value in words.items())
    return f"in LeRobot, for a policy with chunk_size {config.chunk_size}: lerobot-train ... {options}"
