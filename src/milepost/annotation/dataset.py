"""A whole dataset annotated by a model, in one call: what `milepost annotate` does before it writes anything into the dataset."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from milepost.annotation.loop import AskConfig, annotate_episodes, provenance, to_ask
from milepost.annotation.store import AnnotationStore
from milepost.annotation.subtasks import Subtask, SubtaskList
from milepost.core import HEADS, MAIN_HEAD, DataError, Tick, quiet, require_one_of, warn_user
from milepost.datasets import HeadAnnotations, LeRobotDataset, as_dataset
from milepost.vlm import ChatModel


def annotate(
    dataset: LeRobotDataset | Path | str,
    model: ChatModel,
    subtasks: Sequence[str] | SubtaskList,
    folder: Path | str,
    *,
    head: str = MAIN_HEAD,
    config: AskConfig | None = None,
    weights: Mapping[str, str] | None = None,
    on_progress: Tick = quiet,
) -> HeadAnnotations:
    """Asks a model where the stages of every episode are. Returns the accepted segments by episode; the dataset stays as it is.

    An episode whose answers were all refused, or that got none, is in the result's `refused` with the reason; a DataWarning counts them.
    `write_annotations(dataset, result)` writes the result. dataset: an open one, a folder or a Hub id. subtasks: the stages in their order.
    folder: where each answer is stored, so that the same call goes on after an interruption; answers of another model or other stages are
    refused. head: "sparse" or "dense". config: how the model is asked; default: contact sheets of the first camera. weights: what tells
    the model's weights from others. DataError for a dataset without a camera, another head, and if the server answers nothing.

    "dots" is what `milepost.testing.write_example("dots")` writes: six episodes and a progress file.

    >>> from milepost.testing import chat_server
    >>> dataset = milepost.open_dataset("dots", episodes=[0])
    >>> reply = '''{"subtasks": [{"name": "reach", "start": 0.0, "end": 0.5}, {"name": "carry", "start": 0.5, "end": 2.2},
    ...     {"name": "place", "start": 2.2, "end": 3.3}]}'''
    >>> with chat_server() as server:
    ...     server.text = lambda body: reply
    ...     model = milepost.RemoteChatModel(milepost.ServerConfig(server.url, "tiny"))
    ...     result = milepost.annotate(dataset, model, ["reach", "carry", "place"], "dots.annotations")
    ...     model.close()
    >>> [segment.name for segment in result[0]], result.refused
    (['reach', 'carry', 'place'], {})
    >>> milepost.write_annotations(dataset, result, overwrite=True).episodes
    {'sparse': 6}
    >>> dataset[0].segments["sparse"] == result[0]
    True
    """
    require_one_of(head, HEADS, "head")
    if isinstance(subtasks, str):
        raise DataError(f"subtasks is a list of names, such as ['reach', 'lift'], got the text {subtasks!r}")
    dataset = as_dataset(dataset)
    stages = subtasks if isinstance(subtasks, SubtaskList) else SubtaskList(tuple(map(Subtask, subtasks)))
    config = config or AskConfig(dataset.choose_cameras((), flag="config.cameras", most=1))
    facts = {"model": model.name, "revision": "", "quantization": "", **(weights or {})}
    store = AnnotationStore(Path(folder) / head, provenance(dataset, facts, stages, config))
    todo = to_ask({head: store}, {head: dataset.episode_indices})
    unanswered = annotate_episodes(
        dataset, model, todo, stages={head: stages}, stores={head: store}, config=config, on_progress=on_progress
    )
    return _result(dataset, store, head, stages.names, unanswered)


def _result(
    dataset: LeRobotDataset, store: AnnotationStore, head: str, names: tuple[str, ...], unanswered: Mapping[int, str]
) -> HeadAnnotations:
    """Returns what the store has of the dataset's episodes; a warning counts those that have no annotation."""
    answers = {index: answer for index, heads in store.answers().items() if (answer := heads.get(head)) is not None}
    in_use = [index for index in dataset.episode_indices if index in answers]
    refused = {**{index: answers[index].failure for index in in_use if answers[index].failure}, **unanswered}
    if refused:
        first = min(refused)
        count = f"{len(refused)} of {len(dataset)} episodes have no {head} annotation"
        warn_user(f"{count}; `refused` of the result says why. Episode {first}: {refused[first]}")
    segments = {index: tuple(answers[index].segments or ()) for index in in_use if answers[index].segments}
    return HeadAnnotations(head, names, segments, dict(sorted(refused.items())))
