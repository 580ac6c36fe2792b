"""A prompt as token ids: text before the video, a stamp and placeholders for each group, text after it, answers of one token.

The ids are built here and not by a processor, so they do not depend on the installed transformers: groups stand between vision markers, and
nothing else does. Text is tokenised in one piece between two special tokens, which no merge can cross. Everything that depends on the
instruction comes after the video; otherwise no prefix could be shared.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from milepost.core import DataError, has_words

VIDEO = "<|vision_start|><|video_pad|><|vision_end|>"


@dataclass(frozen=True)
class Prompt:
    """The words of TOPReward (arXiv 2602.19313). template: follows prefix, has {instruction}, ends where the answer is expected.

    chat_template: False leaves the user's turn unfinished and reads the answer as its next word; True closes the turn and lets the
    assistant answer. opening: the words that the assistant's answer begins with, after which an answer is scored.
    """

    prefix: str = "The above video shows a robot manipulation trajectory that completes the following task: "
    template: str = "{instruction} Decide whether the above statement is True or not. The answer is:"
    chat_template: bool = False
    opening: str = ""

    def __post_init__(self) -> None:
        if self.opening and not self.chat_template:
            raise DataError("opening is the beginning of the assistant's answer, so it needs chat_template=True")
        if "{instruction}" not in self.template:
            raise DataError(f"the template should have {{instruction}} where the task goes; it is '{self.template}'")
        try:
            self.template.format(instruction="")
        except (KeyError, IndexError, ValueError) as error:
            raise DataError(f"the template should have {{instruction}} and no other braces; it is '{self.template}'") from error

    def words(self, instruction: str) -> str:
        """Returns the text after the prefix. DataError if there is no instruction."""
        if not has_words(instruction):
            raise DataError("the instruction is empty; name the task, as in 'pick up the cube'")
        return self.template.format(instruction=instruction)


def require_lists(instructions: Sequence[str], answers: Sequence[str]) -> None:
    """Raises DataError if there is nothing to ask, or a single text in place of a list."""
    if isinstance(instructions, str) or isinstance(answers, str):
        raise DataError("instructions and answers are lists of texts, as in instructions=['pick up the cube'], answers=['True']")
    if not instructions:
        raise DataError("no instruction to score; name at least one task")
    if not answers:
        raise DataError("no answers to score; give at least one, as in ['True']")


class PromptTokens:
    """One prompt in one model's tokens."""

    def __init__(self, tokenizer: Any, prompt: Prompt) -> None:
        """Raises DataError if the tokenizer has no chat template, or one without a video."""
        self.prompt = prompt
        self._tokenizer = tokenizer
        self.start, self.video, self.end = (
            tokenizer.convert_tokens_to_ids(f"<|{name}|>") for name in ("vision_start", "video_pad", "vision_end")
        )
        self._special = sorted(tokenizer.get_added_vocab())
        self.before, _ = self._rendered(prompt.prefix)

    def stamp(self, group: int, *, time_s: float, tokens: int) -> list[int]:
        """Returns the ids of group number `group`. Those of the first group include all the text before the video. tokens: the number of
        placeholders.
        """
        text = f"{'' if group else self.before}<{time_s:.1f} seconds>"
        return [*self._ids(text), self.start, *[self.video] * tokens, self.end]

    def question(self, instruction: str, answers: Sequence[str]) -> tuple[list[int], list[int]]:
        """Returns (ids after the last group, id of each answer). DataError if an answer is not one token here, or the text holds special
        tokens.
        """
        require_lists([instruction], answers)
        text = self._after(instruction) + self.prompt.opening
        # With the text before it: alone, the answer could be merged into other tokens.
        texts = [self._ids(text + answer) for answer in answers]
        for ids, answer in zip(texts, answers, strict=True):
            if not answer.strip() or self._tokenizer.decode(ids[-1:]).strip() != answer.strip() or ids[:-1] != texts[0][:-1]:
                pieces = self._tokenizer.convert_ids_to_tokens(self._ids(answer))
                raise DataError(f"the answer '{answer}' should be one token; this tokenizer has {pieces}. Choose a shorter word")
        return texts[0][:-1], [ids[-1] for ids in texts]

    def unopened(self, instruction: str) -> list[int]:
        """Returns the ids after the last group, up to where the model's own words begin: without the opening. DataError as `question`."""
        return self._ids(self._after(instruction))

    def _after(self, instruction: str) -> str:
        """Returns the text between the last group and the answer, or its opening."""
        words = self.prompt.words(instruction)
        if marks := [token for token in self._special if token in self.prompt.prefix + words]:
            raise DataError(f"the prompt or the instruction holds {marks[0]}, which is a mark to this model and no words; take it out")
        if self.prompt.chat_template:
            return self._rendered(self.prompt.prefix + words.rstrip())[1]
        text = self._rendered(self.prompt.prefix)[1] + words
        return text if text[-1].isspace() else text + " "

    def _rendered(self, text: str) -> tuple[str, str]:
        """Returns a user's message with the video and this text, as (text before the video, text after it)."""
        content = [{"type": "video"}, {"type": "text", "text": text}]
        if not self._tokenizer.chat_template:
            raise DataError("this tokenizer has no chat template (chat_template.json or .jinja); the model's folder is incomplete")
        chat, turn = self.prompt.chat_template, [{"role": "user", "content": content}]
        rendered = self._tokenizer.apply_chat_template(turn, tokenize=False, add_generation_prompt=chat)
        before, marker, after = rendered.partition(VIDEO)
        if not marker:
            raise DataError(f"this model's chat template renders no {VIDEO} for a video: it is not of the Qwen3-VL kind")
        return before, after if chat else after.split(self._tokenizer.eos_token)[0]

    def _ids(self, text: str) -> list[int]:
        return list(self._tokenizer.encode(text, add_special_tokens=False))
