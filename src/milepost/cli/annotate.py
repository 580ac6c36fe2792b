"""Divide every episode into named stages with a vision-language model.

The result is checked, compared with other answers, and written into the dataset. You can correct it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias

import tyro

from milepost import annotation, datasets, metrics, scale
from milepost.cli import annotation_output as output
from milepost.cli import copied
from milepost.cli.annotate_options import AskOptions, ModelOptions, StageOptions, spent_on
from milepost.cli.annotate_ray import Questions, ask_on
from milepost.cli.annotation_report import report
from milepost.cli.console import bars, say, warn, warn_all
from milepost.cli.drawings import require_own
from milepost.cli.effects import Effect, require_effects
from milepost.core import (
    HEADS,
    Attempt,
    DataError,
    Segment,
    alike_names,
    annotated_stages,
    contradictions,
    count_noun,
    doubts,
    require_tasks,
    shortlist,
    to_json,
)

Stores: TypeAlias = "Mapping[str, annotation.AnnotationStore]"


@dataclass(frozen=True)
class Args:
    dataset: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="DATASET")]
    """LeRobot dataset, v3.0 or v2.1: a folder, a Hub id or an address (s3://...)."""
    stages: Annotated[StageOptions, tyro.conf.OmitArgPrefixes] = field(default_factory=StageOptions)
    asking: Annotated[AskOptions, tyro.conf.OmitArgPrefixes] = field(default_factory=AskOptions)
    model: Annotated[ModelOptions, tyro.conf.OmitArgPrefixes] = field(default_factory=ModelOptions)
    episodes: str | None = None
    """Episodes to annotate, such as 0-9,12 or 0 1 2; default: all."""
    revision: str | None = None
    """Branch, tag or commit of a Hub dataset."""
    skip_existing: bool = False
    """Keep existing annotations, head by head: for an episode that has only sparse stages, the model is still asked for dense ones."""
    overwrite: bool = False
    """Replace existing annotations of the dataset; with --to-file, replace the file."""
    retry_failed: bool = False
    """Ask again about episodes without an acceptable answer."""
    restart: bool = False
    """Ask about all episodes again; earlier answers are moved to another folder."""
    store: Path | None = None
    """Folder of the model's answers; default: DATASET.annotations beside the dataset; for a Hub dataset, in the current folder."""
    export: bool = False
    """Ask no model: write the answers that are in the store."""
    import_file: Annotated[Path | None, tyro.conf.arg(name="import")] = None
    """Ask no model: write the annotations of this .csv or .json file, with the same checks. They replace the old ones of these episodes."""
    from_subtask_index: Literal["sparse", "dense"] | None = None
    """Ask no model: use the dataset's subtask of every frame (subtask_index) as its sparse or dense stages."""
    from_language: Literal["sparse", "dense"] | None = None
    """Ask no model: use the subtasks that lerobot-annotate wrote (language_persistent) as the dataset's sparse or dense stages."""
    to_file: Path | None = None
    """Ask no model: write the annotations into this .csv or .json file, one row per segment. Correct it, then use --import."""
    to_language: Path | None = None
    """Ask no model: copy the dataset into this new folder, with the annotations as LeRobot's language columns (style subtask), from the
    dense stages, else the sparse ones. The dataset is not changed."""
    subtask_index: bool = False
    """Also write LeRobot's newer form, a subtask for every frame (this rewrites data/), from the dense stages, else the sparse ones."""
    output_path: Path | None = None
    """Write into a copy of meta/ in this folder and do not change the dataset. A Hub dataset is never edited in its cache."""
    push_to_hub: bool = False
    """Upload the annotations (only files of meta/) to the Hub dataset, or to --output-repo-id, which must be the same dataset."""
    output_repo_id: str | None = None
    num_visualizations: int = 5
    """Number of episodes to draw at the end, the largest disagreement first; 0: none. With --visualize-only and --episodes: all of
    these."""
    visualize_only: bool = False
    """Ask no model and write no annotation: draw the existing annotations."""
    visualize_type: Literal["sparse", "dense", "both"] = "both"
    output_dir: Path = Path("subtask_viz")
    """Folder of the figures."""
    json: bool = False
    ray_options: Annotated[scale.RayOptions, tyro.conf.OmitArgPrefixes] = field(default_factory=scale.RayOptions)


rewritten = scale.with_address


def main(args: Args) -> int:
    """Runs one of the verb's modes; returns the exit code."""
    modes = [
        name
        for name in ("export", "import_file", "from_subtask_index", "from_language", "to_file", "to_language", "visualize_only")
        if getattr(args, name)
    ]
    if len(modes) > 1:
        names = "--export, --import, --from-subtask-index, --from-language, --to-file, --to-language and --visualize-only"
        raise ValueError(f"give one of {names}")
    if args.num_visualizations < 0 or (args.skip_existing and args.overwrite):
        raise ValueError("--num-visualizations is 0 or more, and --skip-existing contradicts --overwrite")
    require_effects(args, _effects(args, modes[0] if modes else "ask"))
    cluster = scale.Cluster.from_options(args.ray_options)
    if args.output_path is None and modes[:1] not in (["to_file"], ["to_language"], ["visualize_only"]):
        datasets.finish_interrupted(args.dataset)  # a killed run may have written half of the files; finish that first
    dataset = datasets.open_dataset(args.dataset, revision=args.revision, episodes=args.episodes)
    folder = _store_folder(args, dataset)
    mode = modes[0] if modes else "ask"
    verb = {
        "ask": _ask,
        "export": _export,
        "import_file": _import,
        "from_subtask_index": _from_subtask_index,
        "from_language": _from_language,
        "to_file": _to_file,
        "to_language": _to_language,
        "visualize_only": _visualize,
    }[mode]
    with nullcontext() if cluster is None else cluster.joined(warn):
        return verb(args, dataset, folder)


def _effects(args: Args, mode: str) -> list[Effect]:
    """Returns which options have an effect only in some modes, or only with a model or a server."""
    bring, asks = ("from_subtask_index", "from_language"), "when a model is asked"
    has_stages, has_server = args.stages != StageOptions(), args.model.base_url is not None
    asked_of_a_model = (
        "retry_failed",
        "restart",
        "model",
        *(f"asking.{each.name}" for each in fields(args.asking) if each.name != "video_key"),
    )
    count = ("num_visualizations",) if args.num_visualizations else ()  # none is what every mode can do
    return [
        Effect(asked_of_a_model, mode == "ask", asks),
        Effect(
            ("asking.video_key", *count, "visualize_type", "output_dir"),
            mode in ("ask", "visualize_only"),
            f"{asks}, or with --visualize-only",
        ),
        Effect(("stages",), mode in ("ask", "import_file", "visualize_only"), f"{asks}, or with --import or --visualize-only"),
        Effect(("ray_options",), mode == "ask", asks),
        Effect(("model", "ray_options"), has_stages, "with stages to ask about (--sparse-subtasks, --dense-subtasks, or a file of them)"),
        Effect(("model.api_key_env", "model.timeout_s", "model.price_per_million"), has_server, "with --base-url"),
        Effect(("model.device", "model.precision", "model.quantization"), not has_server, "without --base-url"),
        Effect(("subtask_index",), mode in ("ask", "export", "import_file"), f"{asks}, or with --export or --import"),
        Effect(("json",), mode in ("ask", "export", "import_file"), f"{asks}, or with --export or --import"),
        Effect(
            ("skip_existing",), mode in ("ask", "export", *bring), "where annotations of the dataset are replaced, and not with --import"
        ),
        Effect(("store",), mode not in bring, "where answers are asked for or read"),
        Effect(
            ("output_path", "push_to_hub"), mode in ("ask", "export", "import_file", *bring), "where annotations are written into meta/"
        ),
    ]


def _ask(args: Args, dataset: datasets.LeRobotDataset, folder: Path) -> int:
    """Asks the model about all episodes, then reports, writes and draws."""
    lists, target = args.stages.lists_or_whole(), _target(args, dataset)
    target.require()
    existing = annotation.read_annotations(dataset.root)
    requested = {head: [n for n in dataset.episode_indices if not (args.skip_existing and existing.get(n, {}).get(head))] for head in lists}
    no_model = lists == {"sparse": annotation.WHOLE}  # one stage over the whole episode: no model is needed, and no store
    stores: Stores = {}
    if no_model:
        answers: dict[str, dict[int, annotation.Answer]] = {
            "sparse": {n: annotation.Answer(annotation.trivial_answer(annotation.WHOLE, dataset.length(n))) for n in requested["sparse"]}
        }
        output.require_no_conflict(
            dataset, output.accepted_segments(answers, requested), lists, requested=requested, overwrite=args.overwrite
        )
        unanswered: dict[int, str] = {}
    else:
        facts, asking = args.model.facts(), args.asking.asking(dataset)
        require_tasks(dataset, asking.task)
        old_answers = annotation.read_annotations(folder) if annotation.is_store(folder) and not args.restart else {}
        output.require_no_conflict(dataset, old_answers, lists, requested=requested, overwrite=args.overwrite)
        there_first = sorted(
            lists, key=lambda head: not (folder / head).is_dir()
        )  # an existing store may refuse; then no folder is made for the other head
        stores_by_head = {
            head: _open_store(args, folder / head, annotation.provenance(dataset, facts, lists[head], asking)) for head in there_first
        }
        stores = {head: stores_by_head[head] for head in lists}
        todo = annotation.to_ask(stores, requested, failed=args.retry_failed)
        unanswered = _run_model(args, dataset, todo, lists=lists, stores=stores, config=asking) if todo else {}
        answers = _answers(stores)
    accepted = output.accepted_segments(answers, requested)
    obstacle = output.in_the_way(dataset, accepted, lists, requested=requested) if accepted else ""
    files = output.write_out(target, accepted, lists, subtask_index=args.subtask_index) if accepted and not obstacle else {}
    figures = _draw_figures(args, dataset, accepted, answers=answers, lists=lists)
    places = {"store": str(folder) if stores else None, **files, "figures": figures}
    code = report(dataset, answers, requested, lists=lists, unanswered=unanswered, facts=places, as_json=args.json)
    if obstacle:
        warn(obstacle)
    return code


def _run_model(
    args: Args,
    dataset: datasets.LeRobotDataset,
    todo: Mapping[int, Sequence[str]],
    *,
    lists: Mapping[str, annotation.SubtaskList],
    stores: Stores,
    config: annotation.AskConfig,
) -> dict[int, str]:
    if (cluster := scale.Cluster.from_options(args.ray_options)) is not None:
        return ask_on(cluster, Questions(args.dataset, args.revision, args.model, lists, config), todo, stores, dataset)
    chat_model = args.model.open()
    try:
        with bars() as bar:
            return annotation.annotate_episodes(
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
        if spent := str(spent_on(chat_model)):
            warn(spent)


def _export(args: Args, dataset: datasets.LeRobotDataset, folder: Path) -> int:
    """Writes the stores' answers into the dataset."""
    stores = _stores(folder)
    target = _target(args, dataset)
    target.require()
    lists = {head: annotation.stages_of(store.provenance) for head, store in stores.items()}
    existing, answers = annotation.read_annotations(dataset.root), _answers(stores)
    requested = {head: [n for n in dataset.episode_indices if not (args.skip_existing and existing.get(n, {}).get(head))] for head in lists}
    accepted = output.accepted_segments(answers, requested)
    output.require_no_conflict(dataset, accepted, lists, requested=requested, overwrite=args.overwrite)
    if not accepted:
        raise DataError(f"{folder} has no accepted annotation of these episodes")
    if obstacle := output.in_the_way(dataset, accepted, lists, requested=requested):
        raise DataError(obstacle)
    files = output.write_out(target, accepted, lists, subtask_index=args.subtask_index)
    facts = {"store": str(folder), **files, "figures": None}
    return report(dataset, answers, requested, lists=lists, unanswered={}, facts=facts, as_json=args.json)


def _import(args: Args, dataset: datasets.LeRobotDataset, folder: Path) -> int:
    """Writes the annotations of a file that a person read_corrections into the dataset."""
    assert args.import_file is not None
    target = _target(args, dataset)
    target.require()
    stored_lists = {
        head: annotation.stages_of(stored) for head in HEADS if (stored := annotation.read_provenance(folder / head)) is not None
    }
    lists = {**stored_lists, **args.stages.lists()}
    annotations = output.read_corrections(args.import_file, dataset, lists)
    files = output.write_out(target, annotations, lists, subtask_index=args.subtask_index)
    count = sum(len(heads) for heads in annotations.values())
    if args.json:
        say(to_json({"annotations": count, "episodes": sorted(annotations), **files}))
    else:
        say(f"{count_noun(count, 'annotation')} of {count_noun(len(annotations), 'episode')} read from {args.import_file}")
        say(f"written: {', '.join(files['written']) or 'nothing, all of it was there'} in {files['folder']}")
    return 0


def _from_subtask_index(args: Args, dataset: datasets.LeRobotDataset, folder: Path) -> int:
    """Writes the runs of one subtask in the frames into the dataset as one head's stages."""
    assert args.from_subtask_index is not None
    return _bring_over(args, dataset, args.from_subtask_index, "subtask_index", datasets.read_subtask_index)


def _from_language(args: Args, dataset: datasets.LeRobotDataset, folder: Path) -> int:
    """Writes the subtasks of the language column into the dataset as one head's stages."""
    assert args.from_language is not None
    return _bring_over(args, dataset, args.from_language, "language_persistent", datasets.read_language_subtasks)


def _bring_over(
    args: Args, dataset: datasets.LeRobotDataset, head: str, column: str, read: Callable[[Path | str, str], datasets.Annotations]
) -> int:
    """Writes the subtasks that a column of the frames has into the dataset as one head's stages."""
    target = _target(args, dataset)
    target.require()
    requested = set(dataset.episode_indices)
    existing = {} if dataset.hints.from_language else annotation.read_annotations(dataset.root)  # meta/ has none of its own then
    runs = read(dataset.root if dataset.is_local else dataset.name, head)
    annotations = {n: heads for n, heads in runs.items() if n in requested and not (args.skip_existing and existing.get(n, {}).get(head))}
    if not annotations:
        raise DataError(f"{dataset.name}: no frame of these episodes has a subtask")
    other = [n for n, heads in annotations.items() if (old := existing.get(n, {}).get(head)) and tuple(old) != tuple(heads[head])]
    if other and not args.overwrite:
        raise DataError(
            f"the dataset has {head} annotations of episodes {shortlist(other)}: give --skip-existing to keep them, or --overwrite"
        )
    without = len(requested) - len(set(runs) & requested)
    summary = f"{head} stages of {count_noun(len(annotations), 'episode')} read from {column}; without any: {without}"
    if all(tuple(existing.get(n, {}).get(head, ())) == tuple(heads[head]) for n, heads in annotations.items()):
        say(summary)  # writing them again would compute the proportions anew, which a person may have set
        say("written: nothing, all of it was there")
        return 0
    warn_all(
        f"the {head} stages of {column}: {words}"
        for words in _contradictions(dataset, {n: heads[head] for n, heads in annotations.items()})
    )
    files = output.write_out(target, annotations, {}, subtask_index=False, keep_language=column != "language_persistent")
    say(summary)
    say(f"written: {', '.join(files['written']) or 'nothing, all of it was there'} in {files['folder']}")
    return 0


def _contradictions(dataset: datasets.LeRobotDataset, segments: Mapping[int, Sequence[Segment]]) -> list[str]:
    """Returns how these stages contradict each other from episode to episode, as `milepost info` says it; else the doubts about them."""
    records = dataset.meta.episodes
    attempts = [Attempt(n, dataset.task_of(n), tuple(each), records[n].success) for n, each in sorted(segments.items()) if each]
    attempts = [each for each in attempts if each.order]
    if not attempts:
        return []
    stages = annotated_stages(attempts)
    wrong = contradictions(attempts, stages.names)
    return wrong + (alike_names(attempts, stages.names) if wrong else doubts(attempts, stages))


def _to_file(args: Args, dataset: datasets.LeRobotDataset, folder: Path) -> int:
    """Writes the dataset's annotations as a table; where the dataset has none, the stores' answers."""
    assert args.to_file is not None
    annotations = _all_there_is(dataset, folder)
    rows = annotation.to_file(args.to_file, annotations, dataset.fps, overwrite=args.overwrite)
    say(f"{count_noun(rows, 'segment')} of {count_noun(len(annotations), 'episode')}: {args.to_file}")
    say(f"after correcting: milepost annotate {args.dataset} --import {args.to_file}")
    return 0


def _to_language(args: Args, dataset: datasets.LeRobotDataset, folder: Path) -> int:
    """Writes a copy of the dataset, with the annotations as rows of its language columns."""
    assert args.to_language is not None
    annotations = _all_there_is(dataset, folder)
    head = "dense" if any(heads.get("dense") for heads in annotations.values()) else "sparse"
    copy = datasets.copy_with_language(args.dataset, args.to_language, annotations, head=head, revision=args.revision)
    count = sum(bool(heads.get(head)) for heads in annotations.values())
    say(f"{head} stages of {count_noun(count, 'episode')} written as subtasks into language_persistent: {args.to_language}")
    warn_all(copied.in_words(copy, args.dataset, dataset))
    return 1 if copy.damage else 0


def _all_there_is(dataset: datasets.LeRobotDataset, folder: Path) -> dict[int, dict[str, Any]]:
    """Returns the dataset's annotations; where it has none, the stores' answers. DataError if there is neither."""
    existing = annotation.read_annotations(dataset.root)
    stored = annotation.read_annotations(folder) if annotation.is_store(folder) else {}
    annotations = {n: {**stored.get(n, {}), **existing.get(n, {})} for n in dataset.episode_indices if stored.get(n) or existing.get(n)}
    if not annotations:
        raise DataError(f"neither {dataset.name} nor {folder} has an annotation of these episodes")
    return annotations


def _visualize(args: Args, dataset: datasets.LeRobotDataset, folder: Path) -> int:
    """Draws the dataset's annotations; where the dataset has none, the stores' answers."""
    existing = annotation.read_annotations(dataset.root)
    stored = annotation.read_annotations(folder) if annotation.is_store(folder) else {}
    annotations = {n: {**stored.get(n, {}), **existing.get(n, {})} for n in dataset.episode_indices if stored.get(n) or existing.get(n)}
    if not annotations or not args.num_visualizations:
        raise DataError(f"there is nothing to draw: neither {dataset.name} nor {folder} has an annotation of these episodes")
    stores = _stores(folder) if annotation.is_store(folder) else {}
    lists = {**{head: annotation.stages_of(store.provenance) for head, store in stores.items()}, **args.stages.lists()}
    figures = _draw_figures(args, dataset, annotations, answers=_answers(stores), lists=lists)
    if not figures:
        raise DataError(f"no {args.visualize_type} annotation to draw")
    say(f"figures: {figures}")
    return 0


def _draw_figures(
    args: Args,
    dataset: datasets.LeRobotDataset,
    annotations: datasets.Annotations,
    *,
    answers: Mapping[str, Mapping[int, annotation.Answer]],
    lists: Mapping[str, annotation.SubtaskList],
) -> str | None:
    """Draws the episodes with the largest disagreement, or the first ones; returns the folder, None if there was nothing to draw."""
    heads = HEADS if args.visualize_type == "both" else (args.visualize_type,)
    selection = {n: by_head for n, each in annotations.items() if (by_head := {head: each[head] for head in heads if each.get(head)})}
    if not selection or not args.num_visualizations:
        return None
    most = len(selection) if args.visualize_only and args.episodes is not None else args.num_visualizations
    camera = next(iter((*args.asking.video_key, *dataset.cameras)), None)
    by_disagreement = output.disagreements(answers)
    order = metrics.ranked({n: by_disagreement.get(n, float("nan")) for n in selection})[:most]
    figures = {number: args.output_dir / f"episode_{number:06d}_subtasks.png" for number in order}
    try:
        require_own(figures.values(), dataset, overwrite=args.overwrite)
    except DataError as error:
        if args.visualize_only:
            raise
        warn(f"nothing is drawn: {error}")  # the annotations are on disk already, so this is only a warning
        return None
    with bars() as bar:
        output.draw(dataset, selection, answers, lists=lists, camera=camera, drawings=figures, tick=bar("draw"))
    return str(args.output_dir)


def _store_folder(args: Args, dataset: datasets.LeRobotDataset) -> Path:
    if args.store is not None:
        return args.store
    if dataset.is_local:
        root = dataset.root.resolve()
        return root.with_name(f"{root.name}.annotations")
    return Path(f"{dataset.name.replace('/', '--')}.annotations")


def _open_store(args: Args, folder: Path, provenance: Mapping[str, str]) -> annotation.AnnotationStore:
    """Opens the store of one head. --restart moves its answers aside even if the question is the same."""
    if args.restart and (previous := annotation.read_provenance(folder)) is not None:
        return annotation.AnnotationStore(folder, {**provenance, "restart": str(int(previous.get("restart", "0")) + 1)}, restart=True)
    previous = annotation.read_provenance(folder)
    return annotation.AnnotationStore(
        folder, {**provenance, **({"restart": previous["restart"]} if previous and "restart" in previous else {})}
    )


def _stores(folder: Path) -> Stores:
    """Returns the existing stores, unchanged. DataError if there is none."""
    provenance = {head: annotation.read_provenance(folder / head) for head in HEADS}
    stores = {head: annotation.AnnotationStore(folder / head, each) for head, each in provenance.items() if each is not None}
    if not stores:
        raise DataError(f"there are no answers in {folder}; run milepost annotate without --export first, or name the folder with --store")
    return stores


def _answers(stores: Stores) -> dict[str, dict[int, annotation.Answer]]:
    return {
        head: {n: by_episode[head] for n, by_episode in store.answers().items() if head in by_episode} for head, store in stores.items()
    }


def _target(args: Args, dataset: datasets.LeRobotDataset) -> output.Target:
    return output.Target(dataset, args.output_path, args.push_to_hub, args.output_repo_id)
