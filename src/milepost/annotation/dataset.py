"""A whole dataset annotated by a model, in one call: what `milepost annotate` does before it writes anything into the dataset."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from milepost.annotation.loop import AskConfig, annotate_episodes, provenance, to_ask
from milepost.annotation.store import AnnotationStore
from milepost.annotation.subtasks import Subtask, SubtaskList
from milepost.core import MAIN_HEAD, Segment, Tick, quiet
from milepost.datasets import LeRobotDataset
from milepost.vlm import ChatModel


def annotate(
    dataset: LeRobotDataset,
    model: ChatModel,
    subtasks: Sequence[str] | SubtaskList,
    folder: Path | str,
    *,
    head: str = MAIN_HEAD,
    config: AskConfig | None = None,
    weights: Mapping[str, str] | None = None,
    on_progress: Tick = quiet,
) -> dict[int, tuple[Segment, ...]]:
    """Asks a model where the stages of every episode are. Returns the accepted segments by episode; the dataset stays as it is.

    subtasks: the stages in their order. folder: where each answer is stored as soon as it is there, so that the same call goes on where it
    was interrupted; the answers of another model or of other stages are refused (DataError). head: "sparse" or "dense". config: how the
    model is asked; without it contact sheets of the first camera. weights: what tells the model's weights from others, such as a commit.
    `write_annotations` writes the result into a dataset. DataError for a dataset without a camera, and if the server answers nothing.

    >>> from milepost.testing import chat_server
    >>> dataset = milepost.open_dataset("dots", episodes=[0])
    >>> reply = '{"subtasks": [{"name": "reach", "start": 0.0, "end": 0.5}, {"name": "carry", "start": 0.5, "end": 3.3}]}'
    >>> with chat_server() as server:
    ...     server.text = lambda body: reply
    ...     model = milepost.RemoteChatModel(milepost.ServerConfig(server.url, "tiny"))
    ...     found = milepost.annotate(dataset, model, ["reach", "carry"], "dots.annotations")
    ...     model.close()
    >>> [segment.name for segment in found[0]]
    ['reach', 'carry']
    """
    stages = subtasks if isinstance(subtasks, SubtaskList) else SubtaskList(tuple(map(Subtask, subtasks)))
    config = config or AskConfig(dataset.choose_cameras((), flag="config.cameras", most=1))
    facts = {"model": model.name, "revision": "", "quantization": "", **(weights or {})}
    store = AnnotationStore(Path(folder) / head, provenance(dataset, facts, stages, config))
    todo = to_ask({head: store}, {head: dataset.episode_indices})
    annotate_episodes(dataset, model, todo, stages={head: stages}, stores={head: store}, config=config, on_progress=on_progress)
    accepted = ((index, heads.get(head)) for index, heads in store.annotations().items())
    return {index: tuple(segments) for index, segments in accepted if segments and index in set(dataset.episode_indices)}
