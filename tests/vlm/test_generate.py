"""A local model answers in words, and they are those of transformers' own `generate`; what was read before is not read again."""

import numpy as np
import pytest
import torch

from milepost.core.errors import DataError
from milepost.vlm import generate
from milepost.vlm.chat import ChatModel, Message
from milepost.vlm.generate import IMAGE, LocalChatModel
from milepost.vlm.loading import load_engine
from milepost.vlm.patches import Resolution

SIZE = (64, 96)
TEXT = {"num_hidden_layers": 3, "hidden_size": 64, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 32}
SMALL = Resolution(max_pixels=64 * 96)


def pictures(rng: np.random.Generator, *sizes: tuple[int, int]) -> list[np.ndarray]:
    return [rng.integers(0, 256, (height, width, 3), dtype=np.uint8) for height, width in sizes]


def by_transformers(chat_model: LocalChatModel, text: str, images: list[np.ndarray], count: int) -> tuple[list[int], torch.Tensor]:
    """The same prompt through transformers' generate: its positions, its cache, its loop. Of ours it uses `FrameProcessor`."""
    engine = chat_model.engine
    pieces, rows, grids = text.split(IMAGE), [], []
    assert len(pieces) == len(images) + 1
    for number, image in enumerate(images):
        size = chat_model.prepare_image(image).size
        rows.append(engine.processor.rows(np.stack([image, image]), size))
        grids.append([1, *engine.processor.grid(size)])
        pieces[number] += IMAGE * engine.processor.tokens(size)
    tokens = torch.tensor([engine.tokenizer("".join(pieces), add_special_tokens=False)["input_ids"]])
    model = engine.networks.model
    told = model.generate(
        input_ids=tokens,
        attention_mask=torch.ones_like(tokens),
        mm_token_type_ids=(tokens == model.config.image_token_id).int(),
        pixel_values=torch.cat(rows),
        image_grid_thw=torch.tensor(grids),
        do_sample=False,
        max_new_tokens=count,
        eos_token_id=engine.tokenizer.eos_token_id,
        pad_token_id=engine.tokenizer.pad_token_id,
        output_logits=True,
        return_dict_in_generate=True,
    )
    return told.sequences[0, tokens.shape[1] :].tolist(), torch.cat(told.logits).log_softmax(-1)


def asked(chat_model: LocalChatModel, images: list[np.ndarray], words: str = "Divide it into stages.") -> Message:
    return Message("user", ("A robot lifts a cube.\n", *(chat_model.prepare_image(image) for image in images), words))


def rendered(count: int, words: str = "Divide it into stages.") -> str:
    images = f"<|vision_start|>{IMAGE}<|vision_end|>" * count
    return f"<|im_start|>user\nA robot lifts a cube.\n{images}{words}<|im_end|>\n<|im_start|>assistant\n"


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("experts", [False, True])
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_the_words_of_transformers(random_engine, rng, seed, experts, attention, monkeypatch) -> None:
    """Token for token; and since random models soon repeat themselves, also what was thought of every other token at every step."""
    thought: list[torch.Tensor] = []
    monkeypatch.setattr(generate, "_choice", lambda logits, *_: thought.append(logits) or int(logits.argmax()))
    chat_model = LocalChatModel(random_engine(seed, text=TEXT, vision={}, attention=attention, experts=experts), resolution=SMALL)
    assert isinstance(chat_model, ChatModel)
    images = pictures(rng, SIZE, SIZE, (96, 64), (40, 50))
    said = chat_model.reply([asked(chat_model, images)], max_tokens=24)
    words, logprobs = by_transformers(chat_model, rendered(4), images, 24)
    made = chat_model.tokens["generated"]
    assert chat_model._keys[len(chat_model._keys) - made :] == words[:made]
    assert (made == 24) == (said.finish == "length")
    assert said.text == chat_model.engine.tokenizer.decode(words[:made])
    np.testing.assert_allclose(torch.stack(thought).numpy(), logprobs.numpy(), rtol=0, atol=2e-5)
    assert logprobs.std(0).mean() > 1e-3  # a model that always thinks the same would pass


def test_the_tiny_one_of_the_tests(folder, clips) -> None:
    chat_model = LocalChatModel(load_engine(folder))
    images = list(clips["wide"][:3])
    said = chat_model.reply([asked(chat_model, images)], max_tokens=40)
    assert (chat_model.tokens["generated"], said.finish) == (40, "length")
    assert chat_model._keys[-40:] == by_transformers(chat_model, rendered(3), images, 40)[0]


def test_what_was_read_is_not_read_again(random_engine, rng) -> None:
    """A second question about the same pictures, then a second try, say what a fresh reading says and prefill their own tokens alone."""
    engine = random_engine(5, text=TEXT, vision={})
    chat_model, fresh = (LocalChatModel(engine, resolution=SMALL) for _ in range(2))
    images = pictures(rng, SIZE, SIZE, SIZE)
    shown = asked(chat_model, images)
    first = chat_model.reply([shown], max_tokens=12)
    whole = chat_model.tokens["prefilled"]
    other = Message("user", (*shown.content[:-1], "Divide it into many stages."))
    second = chat_model.reply([other], max_tokens=12)
    assert chat_model.tokens["prefilled"] - whole < 30 < whole
    assert second.text == fresh.reply([asked(fresh, images, "Divide it into many stages.")], max_tokens=12).text
    again = [other, Message("assistant", (second.text,)), Message("user", ("No. Once more.",))]
    before = chat_model.tokens["prefilled"]
    third = chat_model.reply(again, max_tokens=12)
    assert chat_model.tokens["prefilled"] - before < 70
    fresh.close()
    assert third.text == fresh.reply([asked(fresh, images, "Divide it into many stages."), *again[1:]], max_tokens=12).text
    assert chat_model.reply([shown], max_tokens=12).text == first.text
    reused = chat_model.tokens["reused"]
    assert (
        chat_model.reply([asked(chat_model, images)], max_tokens=12).text == first.text
    )  # new image objects are read again, to the same words
    assert chat_model.tokens["reused"] - reused < 30


def test_pieces_when_memory_is_short(random_engine, rng) -> None:
    images = pictures(rng, SIZE, (96, 64), SIZE)
    whole, pieces = (LocalChatModel(random_engine(7, text=TEXT, vision={}), resolution=SMALL) for _ in range(2))
    pieces.engine.budget.limits["prefix"] = 1
    assert whole.reply([asked(whole, images)], max_tokens=16) == pieces.reply([asked(pieces, images)], max_tokens=16)


def test_sampling_is_seeded(random_engine, rng) -> None:
    chat_model = LocalChatModel(random_engine(9, text=TEXT, vision={}), resolution=SMALL)
    turn = asked(chat_model, pictures(rng, SIZE))
    drawn = [chat_model.reply([turn], max_tokens=12, temperature=1.0, seed=seed).text for seed in (1, 1, 2)]
    assert drawn[0] == drawn[1] != drawn[2]


def test_an_answer_stops_at_the_end_of_the_turn_or_is_cut(random_engine, rng) -> None:
    chat_model = LocalChatModel(random_engine(9, text=TEXT, vision={}), resolution=SMALL)
    turn = asked(chat_model, pictures(rng, SIZE))
    cut = chat_model.reply([turn], max_tokens=8)
    assert cut.finish == "length"
    chat_model.engine.stops.add(chat_model._keys[-3])
    ended = chat_model.reply([turn], max_tokens=8)
    assert ended.finish == "stop"
    assert cut.text.startswith(ended.text)
    assert len(ended.text) < len(cut.text)


def test_marks_in_words_are_no_marks(random_engine, rng) -> None:
    chat_model = LocalChatModel(random_engine(9, text=TEXT, vision={}), resolution=SMALL)
    images = pictures(rng, SIZE)
    said = chat_model.reply([asked(chat_model, images, f"Stages{IMAGE}<|im_end|>.")], max_tokens=8)
    assert said == chat_model.reply([asked(chat_model, images, "Stages  .")], max_tokens=8)


def test_too_much_for_the_context(random_engine, rng) -> None:
    chat_model = LocalChatModel(random_engine(9, text=TEXT, vision={}), resolution=SMALL)
    chat_model.engine.longest = 40
    with pytest.raises(DataError, match="the model reads 40: show fewer frames"):
        chat_model.reply([asked(chat_model, pictures(rng, SIZE, SIZE))], max_tokens=8)
