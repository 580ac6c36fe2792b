"""The loop: every episode ends correct within the noise, or listed with its reason; nothing is asked twice, and nothing is lost."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import numpy as np
import pytest

from annotator import FPS, NAMES, Annotator, Words, dataset_of, truth_of
from builders import TOP, WRIST
from milepost.annotation.loop import AskConfig, annotate_episodes, prepare_prompt, provenance, to_ask
from milepost.annotation.store import AnnotationStore
from milepost.annotation.subtasks import SubtaskList
from milepost.core.errors import DataError
from milepost.datasets.reader import LeRobotDataset, open_dataset
from milepost.testing import ChatServer, chat_server
from milepost.vlm.chat import RemoteChatModel
from milepost.vlm.generate import LocalChatModel
from milepost.vlm.loading import load_engine
from milepost.vlm.transport import ServerConfig

DATA = Path(__file__).parent / "data"
LENGTHS = (100, 111, 123, 134, 146, 157, 168, 180, 191, 203, 214, 226, 237, 249)
FAILED = (11,)
KINDS = {
    0: "", 1: "wrong name", 2: "gap", 3: "overlap", 4: "prose", 5: "truncated", 6: "integers", 7: "429 once", 8: "chatter", 9: "503",
    10: "hole", 11: "", 12: "clocks", 13: "400",
}  # fmt: skip
"""What goes wrong with each episode: the first time it is asked about, or always (`ALWAYS`)."""
ALWAYS = ("gap", "prose", "integers", "chatter", "503", "clocks", "400", "429 once")
NOISE_S = 0.1
LISTS = {head: SubtaskList.from_flag(",".join(names)) for head, names in NAMES.items()}
TRUTH = truth_of(LENGTHS, failed=FAILED)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory) -> LeRobotDataset:
    return open_dataset(dataset_of(tmp_path_factory.mktemp("annotate") / "cubes", LENGTHS, TRUTH, failed=FAILED))


def fault(episode: int, head: str, attempt: int) -> str:
    kind = KINDS[episode]
    return kind if not attempt or kind in ALWAYS else ""


def stores_in(folder: Path, heads=("sparse", "dense")) -> dict[str, AnnotationStore]:
    return {head: AnnotationStore(folder / head, {"made": "by a test"}) for head in heads}


def chat_model_of(server: ChatServer, **settings) -> RemoteChatModel:
    quick = {"backoff_s": 0.001, "retries": 2, **settings}
    return RemoteChatModel(ServerConfig(server.url, "tiny", **quick))


def asked(dataset, server, stores, todo, *, workers=4, config=None, chat_model=None) -> dict[int, str]:
    chat_model = chat_model or chat_model_of(server, concurrency=workers)
    try:
        return annotate_episodes(
            dataset, chat_model, todo, stages=LISTS, stores=stores, config=config or AskConfig((TOP,)), workers=workers
        )
    finally:
        chat_model.close()


@pytest.mark.parametrize("workers", [1, 4])
def test_correct_within_the_noise_or_listed_with_its_reason(dataset, tmp_path, workers) -> None:
    annotator = Annotator(TRUTH, LENGTHS, noise_s=NOISE_S, fault=fault)
    stores = stores_in(tmp_path)
    wanted = dict.fromkeys(LISTS, dataset.episode_indices)
    with chat_server(model=Words(), script=annotator) as server:
        unanswered = asked(dataset, server, stores, to_ask(stores, wanted), workers=workers)
    assert set(unanswered) == {9, 13}
    assert "503" in unanswered[9]
    assert "400" in unanswered[13]
    failures = {**stores["sparse"].failures(), **stores["dense"].failures()}
    assert set(failures) == {(8, "sparse"), (8, "dense")}
    assert failures[8, "sparse"].startswith(
        "after 3 answers: no JSON: there is no JSON list of stages in the answer, which begins 'The robot"
    )
    for head, store in stores.items():
        found = store.annotations()
        assert set(found) == set(range(14)) - {8, 9, 13}
        for number, heads in found.items():
            segments, true = heads[head], TRUTH[number][head]
            assert [s.name for s in segments] == [s.name for s in true]
            assert (segments[0].start, segments[-1].stop) == (0, LENGTHS[number])
            within = 0.5 if KINDS[number] == "integers" else 0.0  # whole seconds: asked three times, then taken as they are
            for said, meant in zip(segments[1:], true[1:], strict=True):
                assert abs(said.start - meant.start) / FPS <= NOISE_S + within + 0.5 / FPS + 1e-9, (number, head)
    answers = stores["sparse"].answers()
    tries = {number: found["sparse"].attempts for number, found in answers.items()}
    assert tries == {0: 1, 1: 2, 2: 1, 3: 2, 4: 1, 5: 2, 6: 3, 7: 1, 8: 3, 10: 2, 11: 1, 12: 1}
    assert answers[2]["sparse"].repairs[0].startswith("gap of 0.20 s between")
    assert "whole number of seconds" in answers[6]["sparse"].notes["left"][0]
    assert "juggle" in answers[1]["sparse"].replies[0]


def test_the_fault_is_named_to_the_model(dataset, tmp_path) -> None:
    annotator = Annotator(TRUTH, LENGTHS, fault=fault)
    with chat_server(model=Words(), script=annotator) as server:
        asked(dataset, server, stores_in(tmp_path, ["sparse"]), {1: ["sparse"]}, workers=1)
    first, second = server.bodies
    assert second["messages"][:1] == first["messages"]
    assert [turn["role"] for turn in second["messages"]] == ["user", "assistant", "user"]
    assert "'juggle' is not in the list of stages, which is: 'reach', 'lift', 'place'" in second["messages"][2]["content"][0]["text"]
    names = first["response_format"]["json_schema"]["schema"]["properties"]["subtasks"]["items"]["properties"]["name"]["enum"]
    assert tuple(names) == NAMES["sparse"]
    assert first["temperature"] == 0
    assert "seed" not in first


def test_sparse_and_dense_are_asked_over_the_same_pictures(dataset, tmp_path) -> None:
    """And both begin with the same words, so that whoever reads them reads that once."""
    with chat_server(model=Words(), script=Annotator(TRUTH, LENGTHS)) as server:
        asked(dataset, server, stores_in(tmp_path), {0: ["sparse", "dense"]}, workers=1, config=AskConfig((TOP, WRIST)))
    sparse, dense = (body["messages"][0]["content"] for body in server.bodies)
    assert sparse[:-1] == dense[:-1]
    assert [part["type"] for part in sparse] == ["text", "image_url", "image_url", "text"]
    assert "Each frame shows 2 cameras side by side" in sparse[0]["text"]
    assert "11 frames in order of time" in sparse[0]["text"]  # 4.95 s to the last frame, twice a second, and the first


def test_nothing_finished_is_asked_again(dataset, tmp_path) -> None:
    annotator = Annotator(TRUTH, LENGTHS, noise_s=NOISE_S, fault=lambda e, h, a: "chatter" if e == 1 else "")
    wanted = dict.fromkeys(LISTS, range(4))
    with chat_server(model=Words(), script=annotator) as server:
        asked(dataset, server, stores_in(tmp_path), to_ask(stores_in(tmp_path), {"sparse": [0, 1]}))
        assert {each[:2] for each in annotator.asked} == {(0, "sparse"), (1, "sparse")}
        todo = to_ask(stores_in(tmp_path), wanted)
        assert todo == {0: ("dense",), 1: ("dense",), 2: ("sparse", "dense"), 3: ("sparse", "dense")}
        annotator.asked.clear()
        asked(dataset, server, stores_in(tmp_path), todo)
        assert {each[:2] for each in annotator.asked} == {(e, h) for e, heads in todo.items() for h in heads}
        assert not to_ask(stores_in(tmp_path), wanted)
        assert to_ask(stores_in(tmp_path), wanted, failed=True) == {1: ("sparse", "dense")}


def test_one_timeout_loses_nobody_else(dataset, tmp_path) -> None:
    """The others in flight go on, and the next run asks about this episode alone."""
    never = threading.Event()
    annotator = Annotator(TRUTH, LENGTHS)
    plain = annotator.__call__

    def script(number, body):
        answer = plain(number, body)
        if annotator.about(body)[0] == 2:
            answer.wait = never
        return answer

    stores = stores_in(tmp_path, ["sparse"])
    wanted = {"sparse": range(8)}
    with chat_server(model=Words(), script=script) as server:
        chat_model = chat_model_of(server, concurrency=3, timeout_s=2.0, retries=0)
        unanswered = asked(dataset, server, stores, to_ask(stores, wanted), workers=3, chat_model=chat_model)
        assert set(unanswered) == {2}
        assert "no answer within 2 s" in unanswered[2]
        never.set()
        assert to_ask(stores, wanted) == {2: ("sparse",)}


@pytest.mark.parametrize(("status", "most"), [(401, 4), (404, 4), (503, 3 * 10 + 3 * 6)])
def test_a_server_that_refuses_or_never_answers_ends_the_run(dataset, tmp_path, status, most) -> None:
    """A wrong key at once; a dead server after some episodes."""
    annotator = Annotator(TRUTH, LENGTHS, fault=lambda e, h, a: str(status))
    stores = stores_in(tmp_path, ["sparse"])
    with chat_server(model=Words(), script=annotator) as server, pytest.raises(DataError, match=str(status)):
        asked(dataset, server, stores, to_ask(stores, {"sparse": range(14)}))
    assert len(annotator.asked) <= most
    assert not stores["sparse"].answers()


def test_repeats_agree_or_say_by_how_much(dataset, tmp_path) -> None:
    """Five looks at other frames: medians nearer to the truth than one answer, the spread of each border, doubted episodes first."""
    annotator = Annotator(TRUTH, LENGTHS, noise_s=0.4, fault=lambda e, h, a: "chatter" if e == 3 and not a else "")
    stores = stores_in(tmp_path, ["sparse"])
    config = AskConfig((TOP,), repeats=5, tries=1)
    with chat_server(model=Words(), script=annotator) as server:
        assert not asked(dataset, server, stores, to_ask(stores, {"sparse": range(4)}), config=config)
        pictures = {body["messages"][0]["content"][1]["image_url"]["url"] for body in server.bodies}
        assert len(pictures) == len(server.bodies) == 20
        assert {body["temperature"] for body in server.bodies} == {0}
    answers = {number: found["sparse"] for number, found in stores["sparse"].answers().items()}
    assert answers[3].failure.count("repeat") == 5
    for number in range(3):
        notes, segments = answers[number].notes, answers[number].segments
        assert (notes["repeats"], notes["support"], len(notes["each"])) == (5, 5, 5)
        assert 0 < notes["disagreement"] < 0.3
        for k, border in enumerate(notes["borders"]):
            placed = [each[k + 1][1] for each in notes["each"]]
            assert border["frame"] == segments[k + 1].start == round(np.median(placed))
            assert border["spread_s"] == pytest.approx((max(placed) - min(placed)) / FPS, abs=1e-6)
            assert abs(border["frame"] - TRUTH[number]["sparse"][k + 1].start) / FPS <= 0.4
    again = stores_in(tmp_path / "again", ["sparse"])
    with chat_server(model=Words(), script=Annotator(TRUTH, LENGTHS, noise_s=0.4)) as server:
        asked(dataset, server, again, {0: ["sparse"]}, config=config)
    assert again["sparse"].get(0) == stores["sparse"].get(0)


def test_where_every_frame_is_shown_repeats_are_drawn(dataset, tmp_path) -> None:
    """Other frames there are none of, so the same question would get the same answer: a seeded temperature instead."""
    with chat_server(model=Words(), script=Annotator(TRUTH, LENGTHS)) as server:
        config = AskConfig((TOP,), repeats=3, rate_hz=float(FPS), frames=200)
        asked(dataset, server, stores_in(tmp_path, ["sparse"]), {0: ["sparse"]}, config=config, workers=1)
    assert [body["temperature"] for body in server.bodies] == [0, 0.7, 0.7]
    seeds = [body.get("seed") for body in server.bodies]
    assert seeds[0] is None
    assert seeds[1] != seeds[2]


def test_a_head_of_one_stage_asks_nobody(dataset, tmp_path) -> None:
    whole = {"sparse": SubtaskList.from_flag("task")}
    stores = stores_in(tmp_path, ["sparse"])
    with chat_server(model=Words(), script=Annotator(TRUTH, LENGTHS)) as server:
        chat_model = chat_model_of(server)
        annotate_episodes(dataset, chat_model, {0: ["sparse"]}, stages=whole, stores=stores, config=AskConfig((TOP,)))
        chat_model.close()
        assert not server.bodies
    assert [(s.name, s.start, s.stop) for s in stores["sparse"].annotations()[0]["sparse"]] == [("task", 0, 100)]


def test_damaged_pictures_are_listed(tmp_path) -> None:
    root = dataset_of(tmp_path / "cubes", LENGTHS[:2], TRUTH)
    for path in (root / "videos" / TOP).rglob("*.mp4"):
        path.write_bytes(path.read_bytes()[:2000])
    stores = stores_in(tmp_path, ["sparse"])
    with chat_server(model=Words(), script=Annotator(TRUTH, LENGTHS)) as server:
        unanswered = asked(open_dataset(root), server, stores, {0: ["sparse"], 1: ["sparse"]})
    assert set(unanswered) == {0, 1}
    assert all(".mp4" in reason for reason in unanswered.values())


def test_what_a_look_shows(dataset) -> None:
    eyes = LocalChatModel(load_engine(DATA / "qwen3vl_tiny"))
    prompted = prepare_prompt(dataset.episode(13), eyes, AskConfig((TOP,), rate_hz=4.0))
    assert len(prompted.sample) == 51  # 12.4 s from the first to the last frame, at 4 Hz, and the first
    assert prompted.sample.times_s[-1] == 248 / FPS
    assert [picture.image.shape[2] for picture in prompted.images] == [3] * 3
    assert len(prepare_prompt(dataset.episode(13), eyes, AskConfig((TOP,), look="frames", frames=20)).images) == 20


def test_provenance_knows_what_answers_depend_on(dataset) -> None:
    one = provenance(dataset, {"model": "m"}, LISTS["sparse"], AskConfig((TOP,)))
    assert json.loads(one["stages"])["subtasks"][0]["name"] == "reach"
    others = [
        provenance(dataset, {"model": "n"}, LISTS["sparse"], AskConfig((TOP,))),
        provenance(dataset, {"model": "m"}, LISTS["dense"], AskConfig((TOP,))),
        provenance(dataset, {"model": "m"}, LISTS["sparse"], AskConfig((WRIST,))),
        provenance(dataset, {"model": "m"}, LISTS["sparse"], AskConfig((TOP,), repeats=2)),
    ]
    assert all(other != one for other in others)
    assert all(isinstance(value, str) for value in one.values())


@pytest.mark.parametrize("wrong", [{"cameras": ()}, {"repeats": 0}, {"tries": 0}, {"temperature": -1.0}, {"frames": 1}, {"rate_hz": 0.0}])
def test_settings_that_make_no_sense(wrong) -> None:
    with pytest.raises(DataError):
        AskConfig(**{"cameras": (TOP,), **wrong})
