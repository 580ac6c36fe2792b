"""Token ids as LeRobot's processor makes them, whatever transformers is installed."""

import pytest
import transformers

from milepost.core.errors import DataError
from milepost.vlm.prompt import Prompt, PromptTokens

TASK = "slide the window open"


@pytest.fixture
def tokenizer(folder):
    return transformers.AutoTokenizer.from_pretrained(folder)


@pytest.mark.parametrize("case", range(12))
def test_ids_are_lerobots(case, golden, tokenizer):
    case = golden["cases"][case]
    script = PromptTokens(tokenizer, Prompt(chat_template=case["add_chat_template"]))
    question, (answer,) = script.question(case["instruction"], ["True"])
    assert len(case["prefixes"]) == case["frames"]
    for each in case["prefixes"]:
        n, (_, high, wide) = each["frames"], each["video_grid_thw"][0]
        stamps = [(a / 2.0 + min(a + 1, n - 1) / 2.0) / 2 for a in range(0, n, 2)]
        before = [i for group, time_s in enumerate(stamps) for i in script.stamp(group, time_s=time_s, tokens=high * wide // 4)]
        assert [*before, *question, answer] == each["input_ids"]


def test_answers_follow_the_way_they_are_read(golden, tokenizer):
    for chat, space in ((False, " "), (True, "")):
        _, ids = PromptTokens(tokenizer, Prompt(chat_template=chat)).question(TASK, ["True", "False"])
        assert ids == [golden["answer_tokens"][space + word][0] for word in ("True", "False")]


def test_an_answer_of_several_tokens_names_its_pieces(tokenizer):
    with pytest.raises(DataError, match=r"'Absolutely' should be one token.*\['A'"):
        PromptTokens(tokenizer, Prompt()).question(TASK, ["True", "Absolutely"])


@pytest.mark.parametrize("answers", [[], [""], [" "]])
def test_no_answer_is_refused(answers, tokenizer):
    with pytest.raises(DataError, match="answer"):
        PromptTokens(tokenizer, Prompt()).question(TASK, answers)


@pytest.mark.parametrize("instruction", ["", " \n"])
def test_an_empty_instruction_is_refused(instruction, tokenizer):
    with pytest.raises(DataError, match="instruction is empty"):
        PromptTokens(tokenizer, Prompt()).question(instruction, ["True"])


@pytest.mark.parametrize("mark", ["<|video_pad|>", "<|im_end|>"])
def test_an_instruction_cannot_smuggle_marks(mark, tokenizer):
    with pytest.raises(DataError, match="is a mark"):
        PromptTokens(tokenizer, Prompt()).question(f"open {mark} the drawer", ["True"])


def test_braces_in_an_instruction_are_words(tokenizer):
    assert PromptTokens(tokenizer, Prompt()).question("open {drawer}", ["True"])


@pytest.mark.parametrize("template", ["Is it done?", "{instruction} {task}", "{instruction} {", "{instruction} {}"])
def test_a_template_that_cannot_be_filled_is_refused(template):
    with pytest.raises(DataError, match=r"\{instruction\}"):
        Prompt(template=template)


def test_a_tokenizer_without_video_in_its_template_is_refused(tokenizer):
    tokenizer.chat_template = "{{ messages[0].role }}"
    with pytest.raises(DataError, match="video"):
        PromptTokens(tokenizer, Prompt())
    tokenizer.chat_template = None
    with pytest.raises(DataError, match="no chat template"):
        PromptTokens(tokenizer, Prompt())


def test_the_systems_words_stay_before_the_video(tokenizer):
    """A template with a system turn has an end-of-turn mark before the video too."""
    tokenizer.chat_template = "{{- '<|im_start|>system\nYou watch.<|im_end|>\n' }}" + tokenizer.chat_template
    script = PromptTokens(tokenizer, Prompt())
    assert tokenizer.decode(script.stamp(0, time_s=0.25, tokens=1)).startswith(
        "<|im_start|>system\nYou watch.<|im_end|>\n<|im_start|>user\n<0.2"
    )
    assert tokenizer.decode(script.question(TASK, ["True"])[0]).endswith("The answer is:")
