"""Let a vision-language model divide every episode into named stages; check, compare, correct and write the result into the dataset."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias

import tyro

from milepost import annotation, datasets, metrics
from milepost.cli.annotate_options import AskOptions, ModelOptions, StageOptions, usage_of
from milepost.cli.annotation_output import Target, corrected, disagreements, draw, require_no_conflict, shortlist, write_out
from milepost.cli.annotation_report import report
from milepost.cli.console import bars, say, warn
from milepost.cli.drawings import require_own
from milepost.core import DataError, require_tasks, to_json

Stores: TypeAlias = "Mapping[str, annotation.AnnotationStore]"


@dataclass(frozen=True)
class Args:
    dataset: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="DATASET")]
    """LeRobot dataset, v3.0 or v2.1: a folder or a Hub id."""
    stages: Annotated[StageOptions, tyro.conf.OmitArgPrefixes] = field(default_factory=StageOptions)
    asking: Annotated[AskOptions, tyro.conf.OmitArgPrefixes] = field(default_factory=AskOptions)
    model: Annotated[ModelOptions, tyro.conf.OmitArgPrefixes] = field(default_factory=ModelOptions)
    episodes: str | None = None
    """Episodes to annotate, such as 0-9,12 or 0 1 2; default: all."""
    revision: str | None = None
    """Of a Hub dataset."""
    skip_existing: bool = False
    """Leave alone what the dataset has, head by head: an episode with sparse stages alone is still asked about dense ones."""
    overwrite: bool = False
    """Replace annotations that the dataset has; with --to-file, the file."""
    retry_failed: bool = False
    """Ask again about episodes whose answers were given up."""
    restart: bool = False
    """Ask everything anew; earlier answers are moved aside."""
    store: Path | None = None
    """Folder where answers are kept as they come; default: DATASET.annotations beside the dataset, or here for a Hub dataset."""
    export: bool = False
    """Ask nothing: write what the store has now."""
    import_file: Annotated[Path | None, tyro.conf.arg(name="import")] = None
    """Ask nothing: write the annotations of this .csv or .json file, with the same checks. Its episodes' old ones are replaced."""
    from_subtask_index: Literal["sparse", "dense"] | None = None
    """Ask nothing: take the subtask that the dataset has for every frame (subtask_index) as its sparse, or its dense, stages."""
    to_file: Path | None = None
    """Ask nothing: write the annotations into this .csv or .json file, one row a segment, to be corrected and imported."""
    subtask_index: bool = False
    """Write also LeRobot's newer form, a subtask for every frame (which rewrites data/): of the dense stages, else the sparse ones."""
    output_path: Path | None = None
    """Write into a copy of meta/ in this folder, and leave the dataset as it is. A Hub dataset is never edited in its cache."""
    push_to_hub: bool = False
    """Upload the annotations (files of meta/ alone) to the Hub dataset, or to --output-repo-id, which must hold the same dataset."""
    output_repo_id: str | None = None
    num_visualizations: int = 5
    """Episodes to draw afterwards, those most disagreed on first; 0: none. With --visualize-only all of --episodes, if given."""
    visualize_only: bool = False
    """Ask and write nothing: draw what the dataset has."""
    visualize_type: Literal["sparse", "dense", "both"] = "both"
    output_dir: Path = Path("subtask_viz")
    """Folder of the figures."""
    json: bool = False


def main(args: Args) -> int:
    modes = [name for name in ("export", "import_file", "from_subtask_index", "to_file", "visualize_only") if getattr(args, name)]
    if len(modes) > 1:
        raise ValueError("give one of --export, --import, --from-subtask-index, --to-file and --visualize-only")
    if args.num_visualizations < 0 or (args.skip_existing and args.overwrite):
        raise ValueError("--num-visualizations is 0 or more, and --skip-existing contradicts --overwrite")
    if args.output_path is None and modes[:1] not in (["to_file"], ["visualize_only"]):
        datasets.finish_interrupted(
            args.dataset
        )  # a run that was killed while it wrote; it comes first, or files would be half new, half old
    dataset = datasets.open_dataset(args.dataset, revision=args.revision, episodes=args.episodes)
    folder = _store_folder(args, dataset)
    mode = modes[0] if modes else "ask"
    return {
        "ask": _ask,
        "export": _export,
        "import_file": _import,
        "from_subtask_index": _from_subtask_index,
        "to_file": _to_file,
        "visualize_only": _visualize,
    }[mode](args, dataset, folder)


def _ask(args: Args, dataset: datasets.LeRobotDataset, folder: Path) -> int:
    """The whole of it: ask, report, write, draw."""
    lists, target = args.stages.wanted(), _target(args, dataset)
    target.require()
    held = annotation.read_annotations(dataset.root)
    wanted = {head: [n for n in dataset.episode_indices if not (args.skip_existing and held.get(n, {}).get(head))] for head in lists}
    nobody = lists == {"sparse": annotation.WHOLE}  # no model is needed, and no store
    stores: Stores = {}
    if nobody:
        answers: dict[str, dict[int, annotation.Answer]] = {
            "sparse": {n: annotation.Answer(annotation.trivial_answer(annotation.WHOLE, dataset.length(n))) for n in wanted["sparse"]}
        }
        require_no_conflict(dataset, _accepted(answers, wanted), lists, wanted=wanted, overwrite=args.overwrite)
        unanswered: dict[int, str] = {}
    else:
        facts, asking = args.model.facts(), args.asking.asking(dataset)
        require_tasks(dataset, asking.task)
        kept = annotation.read_annotations(folder) if annotation.is_store(folder) and not args.restart else {}
        require_no_conflict(dataset, kept, lists, wanted=wanted, overwrite=args.overwrite)
        there_first = sorted(lists, key=lambda head: not (folder / head).is_dir())  # refused by one, nothing is made for the other
        opened = {head: _opened(args, folder / head, annotation.provenance(dataset, facts, lists[head], asking)) for head in there_first}
        stores = {head: opened[head] for head in lists}
        todo = annotation.to_ask(stores, wanted, failed=args.retry_failed)
        unanswered = _asked(args, dataset, todo, lists=lists, stores=stores, config=asking) if todo else {}
        answers = _answers(stores)
    found = _accepted(answers, wanted)
    files = write_out(target, found, lists, subtask_index=args.subtask_index) if found else {}
    figures = _drawn(args, dataset, found, answers=answers, lists=lists)
    facts_said = {"store": str(folder) if stores else None, **files, "figures": figures}
    return report(dataset, answers, wanted, lists=lists, unanswered=unanswered, facts=facts_said, as_json=args.json)


def _asked(
    args: Args,
    dataset: datasets.LeRobotDataset,
    todo: Mapping[int, Sequence[str]],
    *,
    lists: Mapping[str, annotation.SubtaskList],
    stores: Stores,
    config: annotation.AskConfig,
) -> dict[int, str]:
    chat_model = args.model.open()
    try:
        with bars() as bar:
            return annotation.annotate(
                dataset,
                chat_model,
                todo,
                stages=lists,
                stores=stores,
                config=config,
                workers=args.model.workers,
                on_progress=bar("annotate"),
            )
    finally:
        chat_model.close()
        if usage := usage_of(chat_model):
            warn(usage)


def _export(args: Args, dataset: datasets.LeRobotDataset, folder: Path) -> int:
    """What the stores have, into the dataset."""
    stores = _stores(folder)
    target = _target(args, dataset)
    target.require()
    lists = {head: annotation.stages_of(store.provenance) for head, store in stores.items()}
    held, answers = annotation.read_annotations(dataset.root), _answers(stores)
    wanted = {head: [n for n in dataset.episode_indices if not (args.skip_existing and held.get(n, {}).get(head))] for head in lists}
    found = _accepted(answers, wanted)
    require_no_conflict(dataset, found, lists, wanted=wanted, overwrite=args.overwrite)
    if not found:
        raise DataError(f"{folder} has no accepted annotation of these episodes")
    files = write_out(target, found, lists, subtask_index=args.subtask_index)
    facts = {"store": str(folder), **files, "figures": None}
    return report(dataset, answers, wanted, lists=lists, unanswered={}, facts=facts, as_json=args.json)


def _import(args: Args, dataset: datasets.LeRobotDataset, folder: Path) -> int:
    """A file that a person corrected, into the dataset."""
    assert args.import_file is not None
    target = _target(args, dataset)
    target.require()
    kept = {head: annotation.stages_of(told) for head in datasets.HEADS if (told := annotation.read_provenance(folder / head)) is not None}
    lists = {**kept, **args.stages.lists()}
    found = corrected(args.import_file, dataset, lists)
    files = write_out(target, found, lists, subtask_index=args.subtask_index)
    count = sum(len(heads) for heads in found.values())
    if args.json:
        say(to_json({"annotations": count, "episodes": sorted(found), **files}))
    else:
        say(f"{count} annotations of {len(found)} episodes read from {args.import_file}")
        say(f"written: {', '.join(files['written']) or 'nothing, all of it was there'} in {files['folder']}")
    return 0


def _from_subtask_index(args: Args, dataset: datasets.LeRobotDataset, folder: Path) -> int:
    """The runs of one subtask in the frames, into the dataset as one head's stages."""
    head = args.from_subtask_index
    assert head is not None
    target = _target(args, dataset)
    target.require()
    chosen = set(dataset.episode_indices)
    held, runs = (
        annotation.read_annotations(dataset.root),
        datasets.read_subtask_index(dataset.root if dataset.is_local else dataset.name, head),
    )
    found = {n: heads for n, heads in runs.items() if n in chosen and not (args.skip_existing and held.get(n, {}).get(head))}
    if not found:
        raise DataError(f"{dataset.name}: no frame of these episodes has a subtask")
    other = [n for n, heads in found.items() if (old := held.get(n, {}).get(head)) and tuple(old) != heads[head]]
    if other and not args.overwrite:
        raise DataError(
            f"the dataset has {head} annotations of episodes {shortlist(other)}: give --skip-existing to keep them, or --overwrite"
        )
    files = write_out(target, found, {}, subtask_index=False)
    say(f"{head} stages of {len(found)} episodes read from subtask_index; without any: {len(chosen) - len(set(runs) & chosen)}")
    say(f"written: {', '.join(files['written']) or 'nothing, all of it was there'} in {files['folder']}")
    return 0


def _to_file(args: Args, dataset: datasets.LeRobotDataset, folder: Path) -> int:
    """What the dataset has, and what the stores have that it has not, as a table."""
    assert args.to_file is not None
    held = annotation.read_annotations(dataset.root)
    stored = annotation.read_annotations(folder) if annotation.is_store(folder) else {}
    found = {n: {**stored.get(n, {}), **held.get(n, {})} for n in dataset.episode_indices if stored.get(n) or held.get(n)}
    if not found:
        raise DataError(f"neither {dataset.name} nor {folder} has an annotation of these episodes")
    rows = annotation.to_file(args.to_file, found, dataset.fps, overwrite=args.overwrite)
    say(f"{rows} segments of {len(found)} episodes: {args.to_file}")
    say(f"after correcting: milepost annotate {args.dataset} --import {args.to_file}")
    return 0


def _visualize(args: Args, dataset: datasets.LeRobotDataset, folder: Path) -> int:
    """Figures of what the dataset has; of what the stores have where it has nothing."""
    held = annotation.read_annotations(dataset.root)
    stored = annotation.read_annotations(folder) if annotation.is_store(folder) else {}
    found = {n: {**stored.get(n, {}), **held.get(n, {})} for n in dataset.episode_indices if stored.get(n) or held.get(n)}
    if not found or not args.num_visualizations:
        raise DataError(f"there is nothing to draw: neither {dataset.name} nor {folder} has an annotation of these episodes")
    stores = _stores(folder) if annotation.is_store(folder) else {}
    lists = {**{head: annotation.stages_of(store.provenance) for head, store in stores.items()}, **args.stages.lists()}
    figures = _drawn(args, dataset, found, answers=_answers(stores), lists=lists)
    if not figures:
        raise DataError(f"no {args.visualize_type} annotation to draw")
    say(f"figures: {figures}")
    return 0


def _drawn(
    args: Args,
    dataset: datasets.LeRobotDataset,
    found: datasets.Annotations,
    *,
    answers: Mapping[str, Mapping[int, annotation.Answer]],
    lists: Mapping[str, annotation.SubtaskList],
) -> str | None:
    """Draw the first, or those most disagreed on; returns the folder, None if there was nothing to draw."""
    heads = datasets.HEADS if args.visualize_type == "both" else (args.visualize_type,)
    chosen = {n: kept for n, each in found.items() if (kept := {head: each[head] for head in heads if each.get(head)})}
    if not chosen or not args.num_visualizations:
        return None
    most = len(chosen) if args.visualize_only and args.episodes is not None else args.num_visualizations
    camera = next(iter((*args.asking.video_key, *dataset.cameras)), None)
    doubted = disagreements(answers)
    order = metrics.ranked({n: doubted.get(n, float("nan")) for n in chosen})[:most]
    figures = {number: args.output_dir / f"episode_{number:06d}_subtasks.png" for number in order}
    try:
        require_own(figures.values(), dataset, overwrite=args.overwrite)
    except DataError as error:
        if args.visualize_only:
            raise
        warn(f"nothing is drawn: {error}")  # the annotations are written
        return None
    with bars() as bar:
        draw(dataset, chosen, answers, lists=lists, camera=camera, drawings=figures, tick=bar("draw"))
    return str(args.output_dir)


def _store_folder(args: Args, dataset: datasets.LeRobotDataset) -> Path:
    if args.store is not None:
        return args.store
    if dataset.is_local:
        root = dataset.root.resolve()
        return root.with_name(f"{root.name}.annotations")
    return Path(f"{dataset.name.replace('/', '--')}.annotations")


def _opened(args: Args, folder: Path, told: Mapping[str, str]) -> annotation.AnnotationStore:
    """The store of one head. --restart moves its answers aside even if they are to the same question."""
    if args.restart and (held := annotation.read_provenance(folder)) is not None:
        return annotation.AnnotationStore(folder, {**told, "restart": str(int(held.get("restart", "0")) + 1)}, restart=True)
    held = annotation.read_provenance(folder)
    return annotation.AnnotationStore(folder, {**told, **({"restart": held["restart"]} if held and "restart" in held else {})})


def _stores(folder: Path) -> Stores:
    """Those that are there, as they are. DataError if there is none."""
    told = {head: annotation.read_provenance(folder / head) for head in datasets.HEADS}
    found = {head: annotation.AnnotationStore(folder / head, each) for head, each in told.items() if each is not None}
    if not found:
        raise DataError(f"there are no answers in {folder}; run milepost annotate without --export first, or name the folder with --store")
    return found


def _answers(stores: Stores) -> dict[str, dict[int, annotation.Answer]]:
    return {head: {n: found[head] for n, found in store.answers().items() if head in found} for head, store in stores.items()}


def _accepted(answers: Mapping[str, Mapping[int, annotation.Answer]], wanted: Mapping[str, Sequence[int]]) -> dict[int, dict[str, Any]]:
    """Episode -> head -> segments, of those wanted."""
    found: dict[int, dict[str, Any]] = {}
    for head, numbers in wanted.items():
        for number in numbers:
            answer = answers[head].get(number)
            if answer is not None and answer.segments:
                found.setdefault(number, {})[head] = answer.segments
    return dict(sorted(found.items()))


def _target(args: Args, dataset: datasets.LeRobotDataset) -> Target:
    return Target(dataset, args.output_path, args.push_to_hub, args.output_repo_id)
