"""The shared-prefix engine: log p(answer | first n frames, instruction) for many n and many instructions, with the clip read once.

In Qwen3-VL the vision tower encodes each group of two frames alone, the tokens of a group follow those of earlier groups, and no position
depends on a later group. So, at one image size, the prefixes of a clip are prefixes of one token sequence. The clip is prefilled once into
a KV cache (`PrefixCache`), and every question attends to the keys and values of the groups it may see. A prefix of odd length ends in a
group of its own, the last frame twice, called a branch. Sizes that depend on the prefix ("lerobot") need one cache each. The numbers equal
those of one pass per prefix, to rounding; `separate` is that pass.
"""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from milepost.core import DataError, UnreadableError
from milepost.vlm.memory import Budget
from milepost.vlm.network import Networks, TokenBlock, positions
from milepost.vlm.patches import PAIR, FrameProcessor, Resolution, Size
from milepost.vlm.prompt import Prompt, PromptTokens, require_lists
from milepost.vlm.video_clip import AppendView, Clip, PrefixCache, ReadView, make_clip, middle

FramePair = tuple[UInt8[np.ndarray, "2 H W 3"], float]
"""Two frames, and the time they are stamped with, in seconds."""
Cell = tuple[int, int]
"""Number of an instruction and of a prefix: where an answer goes in a table."""
Suffixes = list[tuple[list[int], list[int]]]
"""For each instruction, the ids of the question and the id of each answer."""
CHUNK = {"cpu": 512, "cuda": 4096}
"""The most tokens of questions in one pass. All of them are one sequence with a mask, and masked pairs cost as much as others: larger
passes lose.
"""
IMAGE_BATCH = 8
"""Groups that the vision tower encodes at once. Eight fill a GPU and need so little memory that the allocator keeps it."""


@dataclass(frozen=True)
class PromptSuffix:
    """What follows the prefix: `branch` if the prefix is odd, then `ids`, after `groups` groups of the cache. cell: where its answer goes
    in the table.
    """

    cell: Cell
    groups: int
    branch: FramePair | None
    ids: list[int]


class Engine:
    """A loaded model. Not for two threads at once. `tokens` counts the language tokens computed: "prefix", "branches", "suffixes",
    "separate".
    """

    def __init__(
        self,
        model: nn.Module,
        tokenizer: Any,
        *,
        processor: FrameProcessor,
        prompt: Prompt | None = None,
        max_memory: int | None = None,
        name: str = "",
        commit: str = "",
        fingerprint: str = "",
    ) -> None:
        """Takes a loaded model. max_memory: bytes that one pass may take beside the weights and the KV cache (default: 1 GiB on a CPU, half
        of the free memory of a GPU).
        """
        self.networks = Networks(model)
        self.processor = processor
        self.name, self.commit, self.fingerprint = name, commit, fingerprint
        self.longest = int(self.networks.config.max_position_embeddings)
        """The most tokens of a prefix with its question: the model's context, or fewer if `with_limit` says so."""
        self.tokens: Counter[str] = Counter()
        self.tokenizer = tokenizer
        end_tokens = getattr(getattr(model, "generation_config", None), "eos_token_id", None)
        self.stops = {tokenizer.eos_token_id, *(end_tokens if isinstance(end_tokens, list) else [end_tokens])}
        """The tokens that end an answer in words."""
        self._prompt_tokens = PromptTokens(tokenizer, prompt or Prompt())
        # A prefill of a new clip needs no mask, so its passes may be larger than those of questions.
        limits = {"prefix": 16_384, "questions": CHUNK["cpu" if self.networks.device.type == "cpu" else "cuda"]}
        self.budget = Budget(max_memory, device=self.networks.device, limits=limits)

    @property
    def precision(self) -> str:
        """Returns the dtype that the language model computes in, such as "bfloat16"."""
        return str(self.networks.dtype).removeprefix("torch.")

    @property
    def prompt(self) -> Prompt:
        return self._prompt_tokens.prompt

    def with_limit(self, tokens: int) -> Engine:
        """Returns an engine on the same networks that refuses longer prefixes than this, with their question."""
        other = copy.copy(self)
        other.longest = tokens
        return other

    def with_prompt(self, prompt: Prompt) -> Engine:
        """Returns an engine on the same networks that asks in other words; this one stays as it is."""
        other = copy.copy(self)
        other._prompt_tokens = PromptTokens(self.tokenizer, prompt)
        return other

    def clip(
        self,
        frames: UInt8[np.ndarray, "T H W 3"],
        *,
        times_s: Sequence[float] | None = None,
        fps: float | None = None,
        resolution: Resolution | None = None,
    ) -> Clip:
        """Returns a clip of these frames, stamped with `times_s` or i / `fps`. The clip keeps its KV caches, so later questions about it
        cost only their own tokens.
        """
        return make_clip(frames, times_s=times_s, fps=fps, resolution=resolution or Resolution())

    @torch.inference_mode()
    def score(
        self,
        clip: Clip,
        *,
        instructions: Sequence[str],
        answers: Sequence[str] = ("True", "False"),
        prefixes: Sequence[int] | None = None,
    ) -> Float[np.ndarray, "I P A"]:
        """Returns log p(answer | the first n frames, instruction), in nats, for each n of `prefixes` (default: all).

        DataError if an instruction is empty, an answer is not one token, or the clip is longer than the model's context.
        """
        lengths = clip.prefixes(prefixes)
        suffixes = self.suffixes(instructions, answers)
        table = np.full((len(suffixes), len(lengths), len(answers)), np.nan, np.float32)
        texts = [ids for ids, _ in suffixes]

        def take(cell: Cell, logprobs: Float[Tensor, "V"]) -> None:
            table[cell] = logprobs[suffixes[cell[0]][1]].cpu().numpy()

        for cache, questions in self._read(clip, lengths, texts):
            self._ask(cache, questions, lead=common(texts), take=take)
        return table

    @torch.inference_mode()
    def complete(
        self, clip: Clip, *, instructions: Sequence[str], prefixes: Sequence[int] | None = None, max_tokens: int = 128
    ) -> list[list[str]]:
        """Returns, for each instruction and prefix, the model's answer in words, chosen greedily; at most `max_tokens` tokens.

        The prompt's `opening` is left to the model. Each step asks all prefixes that are not done in shared passes over the same clip.
        DataError as `score`.
        """
        lengths = clip.prefixes(prefixes)
        require_lists(instructions, [""])
        texts = [self._prompt_tokens.unopened(instruction) for instruction in instructions]
        words: dict[Cell, list[int]] = {(i, place): [] for i in range(len(texts)) for place in range(len(lengths))}
        ended: set[Cell] = set()

        def take(cell: Cell, logprobs: Float[Tensor, "V"]) -> None:
            token = int(logprobs.argmax())
            if token in self.stops:
                ended.add(cell)
            else:
                words[cell].append(token)

        for cache, questions in self._read(clip, lengths, texts, room=max_tokens):
            for _ in range(max_tokens):
                going_on = [replace(each, ids=each.ids + words[each.cell]) for each in questions if each.cell not in ended]
                self._ask(cache, going_on, lead=common(texts), take=take)
        decoded = {cell: str(self.tokenizer.decode(ids, skip_special_tokens=True)) for cell, ids in words.items()}
        return [[decoded[i, place] for place in range(len(lengths))] for i in range(len(texts))]

    def _read(
        self, clip: Clip, lengths: Sequence[int], texts: Sequence[list[int]], *, room: int = 0
    ) -> Iterator[tuple[PrefixCache, list[PromptSuffix]]]:
        """Yields, for each size that the prefixes have, its cache with the clip read and the questions about it, shortest prefix first.

        texts: the ids of each instruction's question. room: how many tokens an answer may have.
        """
        sizes = {n: self._size(clip, n) for n in lengths}
        for size in dict.fromkeys(sizes.values()):
            here = sorted((n, place) for place, n in enumerate(lengths) if sizes[n] == size)
            cache = clip.caches.setdefault((self.networks, self._prompt_tokens.before, size), PrefixCache(self.networks.layers, size))
            deepest = here[-1][0] // PAIR
            self.require_context(cache, groups=-(-here[-1][0] // PAIR), question=max(map(len, texts)) + room)
            self._prefill(cache, [clip.pair(group) for group in range(cache.groups, deepest)])
            yield cache, [PromptSuffix((i, place), n // PAIR, clip.odd(n), ids) for n, place in here for i, ids in enumerate(texts)]

    @torch.inference_mode()
    def separate(
        self,
        clip: Clip,
        *,
        instructions: Sequence[str],
        answers: Sequence[str] = ("True", "False"),
        prefixes: Sequence[int] | None = None,
    ) -> Float[np.ndarray, "I P A"]:
        """Returns the same numbers by one pass of the model's published forward per prefix and instruction. Nothing is shared, and
        transformers computes the positions.
        """
        lengths = clip.prefixes(prefixes)
        suffixes = self.suffixes(instructions, answers)
        table = np.full((len(suffixes), len(lengths), len(answers)), np.nan, np.float32)
        for place, n in enumerate(lengths):
            size = self._size(clip, n)
            pairs = [*(clip.pair(group) for group in range(n // PAIR)), *filter(None, [clip.odd(n)])]
            rows = self.processor.rows(np.concatenate([frames for frames, _ in pairs]), size, device=self.networks.device)
            for i, (ids, answer_ids) in enumerate(suffixes):
                before = [token for group, (_, time_s) in enumerate(pairs) for token in self.stamp(group, time_s, size)]
                logprobs = self.networks.own(before + ids, rows, (len(pairs), *self.processor.grid(size)))
                self.tokens["separate"] += len(before + ids)
                table[i, place] = logprobs[answer_ids].cpu().numpy()
        return table

    def stream(
        self,
        *,
        instructions: Sequence[str],
        answers: Sequence[str] = ("True", "False"),
        fps: float | None = None,
        resolution: Resolution | None = None,
    ) -> Stream:
        """Returns a stream that scores while frames arrive, see `Stream`. fps: None if each frame comes with its time."""
        self.suffixes(instructions, answers)
        return Stream(self, instructions=tuple(instructions), answers=tuple(answers), fps=fps, resolution=resolution or Resolution())

    @torch.inference_mode()
    def extend(self, cache: PrefixCache | None, *, size: Size, group: FramePair) -> PrefixCache:
        """Returns the cache with one more complete group; a new cache if it is None."""
        cache = cache or PrefixCache(self.networks.layers, size)
        self.require_context(cache, groups=cache.groups + 1, question=0)
        self._prefill(cache, [group])
        return cache

    @torch.inference_mode()
    def probe(
        self, cache: PrefixCache | None, *, size: Size, branch: FramePair | None, instructions: Sequence[str], answers: Sequence[str]
    ) -> Float[np.ndarray, "I A"]:
        """Returns log p of the answers after all groups of a cache, and after a branch if there is one. The cache is not changed."""
        cache = cache or PrefixCache(self.networks.layers, size)
        suffixes = self.suffixes(instructions, answers)
        self.require_context(cache, groups=cache.groups + (branch is not None), question=max(len(ids) for ids, _ in suffixes))
        table = np.full((len(suffixes), len(answers)), np.nan, np.float32)
        questions = [PromptSuffix((i, 0), cache.groups, branch, ids) for i, (ids, _) in enumerate(suffixes)]

        def take(cell: Cell, logprobs: Float[Tensor, "V"]) -> None:
            table[cell[0]] = logprobs[suffixes[cell[0]][1]].cpu().numpy()

        self._ask(cache, questions, lead=common([ids for ids, _ in suffixes]), take=take)
        return table

    def suffixes(self, instructions: Sequence[str], answers: Sequence[str]) -> Suffixes:
        """Returns the ids of each instruction's question, and those of the answers. DataError as `score`."""
        require_lists(instructions, answers)
        return [self._prompt_tokens.question(instruction, answers) for instruction in instructions]

    def _size(self, clip: Clip, frames: int) -> Size:
        height, width = clip.frames.shape[1:3]
        return self.processor.size(clip.resolution, frames=frames, height=height, width=width)

    def stamp(self, group: int, time_s: float, size: Size) -> list[int]:
        """Returns the ids of a group of frames with its time; those of the first group begin with the text before the video."""
        return self._prompt_tokens.stamp(group, time_s=time_s, tokens=self.processor.tokens(size))

    def require_context(self, cache: PrefixCache, *, groups: int, question: int) -> None:
        """Raises UnreadableError if a prefix of so many groups and a question do not fit. The digits of the time stamps are counted
        generously.
        """
        each = len(self.stamp(1, 9999.9, cache.size))  # nearly three hours: no stamp of a clip has more digits
        needed = len(self.stamp(0, 0.0, cache.size)) + each * (groups - 1) + question
        context = int(self.networks.config.max_position_embeddings)
        if needed > min(self.longest, context):
            limit = f"the model reads {context}" if context <= self.longest else f"max_input_length allows {self.longest}"
            raise UnreadableError(
                f"{groups} groups of frames at {cache.size[0]} x {cache.size[1]} and a question of {question} tokens are about {needed} "
                f"tokens, {limit}; use fewer frames (fps), smaller ones, or allow more"
            )

    def block(self, ids: list[int], size: Size, *, start: int, **place: Any) -> tuple[TokenBlock, int]:
        """Returns a block of tokens from position `start`, and the position after them."""
        grid = size[0] // self.processor.factor, size[1] // self.processor.factor
        places, after = positions(ids, video=self.networks.video, grid=grid, start=start)
        return TokenBlock(ids, places, **place), after

    def _prefill(self, cache: PrefixCache, groups: list[FramePair]) -> None:
        """Computes the keys and values of complete groups and appends them to the cache, as many groups at once as memory allows."""
        each = len(self.stamp(1, 0.0, cache.size))

        def cost(start: int, stop: int) -> tuple[int, int]:
            tokens = each * (stop - start)
            masked = cache.ends[-1] or self.networks.eager
            token, patches, _ = self.networks.activation_bytes(cache.ends[-1] + tokens if masked else 0)
            return tokens, tokens * (token + patches)

        def run(start: int, stop: int) -> None:
            blocks, ends, next_positions = [], list(cache.ends), list(cache.next_positions)
            for number, (_, time_s) in enumerate(groups[start:stop], start=cache.groups):
                block, after = self.block(
                    self.stamp(number, time_s, cache.size), cache.size, start=next_positions[-1], visible=cache.ends[-1]
                )
                blocks.append(block)
                ends.append(ends[-1] + len(block.ids))
                next_positions.append(after)
            features = self.encode_images([frames for frames, _ in groups[start:stop]], cache.size)
            self.networks.forward(blocks, AppendView(cache), features=features, prefix_tokens=cache.ends[-1])
            self.tokens["prefix"] += ends[-1] - cache.ends[-1]
            cache.commit(ends, next_positions)

        self.budget.steps("prefix", len(groups), cost=cost, run=run)

    def _ask(
        self, cache: PrefixCache, questions: list[PromptSuffix], *, lead: int, take: Callable[[Cell, Float[Tensor, "V"]], None]
    ) -> None:
        """Calls `take(cell, log-probabilities of the next token)` for each question; they are in order of their prefixes."""
        each = len(self.stamp(1, 0.0, cache.size))

        def cost(start: int, stop: int) -> tuple[int, int]:
            here = questions[start:stop]
            branches = len({q.cell[1] for q in here if q.branch}) * each
            tokens = branches + sum(len(q.ids) - lead for q in here) + len({q.cell[1] for q in here}) * lead
            token, patches, row = self.networks.activation_bytes(cache.ends[here[-1].groups] + tokens)
            return tokens, tokens * token + branches * patches + len(here) * row

        def run(start: int, stop: int) -> None:
            for question, logprobs in zip(questions[start:stop], self._ask_in_one_pass(cache, questions[start:stop], lead), strict=True):
                take(question.cell, logprobs)

        self.budget.steps("questions", len(questions), cost=cost, run=run)

    def _ask_in_one_pass(self, cache: PrefixCache, questions: list[PromptSuffix], lead: int) -> Float[Tensor, "N V"]:
        """Runs one pass. Questions about one prefix form one attention group: its branch and the first `lead` tokens, common to all, are
        shared (subgroup 0).
        """
        blocks: list[TokenBlock] = []
        odd_pairs, last, attention_group, after = [], [], -1, 0
        counts = Counter[str]()

        def add(kind: str, ids: list[int], question: PromptSuffix, subgroup: int) -> int:
            block, end = self.block(
                ids, cache.size, start=after, visible=cache.ends[question.groups], attention_group=attention_group, subgroup=subgroup
            )
            blocks.append(block)
            counts[kind] += len(ids)
            return end

        for number, question in enumerate(questions):
            if not number or question.cell[1] != questions[number - 1].cell[1]:
                attention_group, after = attention_group + 1, cache.next_positions[question.groups]
                if question.branch is not None:
                    frames, time_s = question.branch
                    after = add("branches", self.stamp(question.groups, time_s, cache.size), question, 0)
                    odd_pairs.append(frames)
                if lead:
                    after = add("suffixes", question.ids[:lead], question, 0)
            add("suffixes", question.ids[lead:], question, number + 1)
            last.append(counts.total() - 1)
        prefix_tokens = cache.ends[questions[-1].groups]
        features = self.encode_images(odd_pairs, cache.size) if odd_pairs else None
        hidden = self.networks.forward(
            blocks, ReadView(cache, prefix_tokens), features=features, prefix_tokens=prefix_tokens, output_tokens=last
        )
        self.tokens.update(counts)
        return self.networks.log_probabilities(hidden)

    def encode_images(self, pairs: list[UInt8[np.ndarray, "2 H W 3"]], size: Size) -> tuple[Tensor, list[Tensor]]:
        """Returns the vision tower's features of groups, and those of each DeepStack level, computed a few groups at a time: pixels take
        much memory, features little.
        """
        batches = []
        for start in range(0, len(pairs), IMAGE_BATCH):
            batch = pairs[start : start + IMAGE_BATCH]
            rows = self.processor.rows(np.concatenate(batch), size, device=self.networks.device)
            batches.append(self.networks.encode_images(rows, groups=len(batch), grid=self.processor.grid(size)))
        return torch.cat([features for features, _ in batches]), [
            torch.cat(level) for level in zip(*(deep for _, deep in batches), strict=True)
        ]


def common(texts: Sequence[Sequence[int]]) -> int:
    """Returns how many first tokens the texts have in common, leaving at least one to each; 0 for a single text."""
    if len(texts) < 2:
        return 0
    length = 0
    while length < min(map(len, texts)) - 1 and len({text[length] for text in texts}) == 1:
        length += 1
    return length


class Stream:
    """Scores frame by frame; made by `Engine.stream`. Call `append` for each frame; make a new stream for a new attempt."""

    def __init__(
        self, engine: Engine, *, instructions: Sequence[str], answers: Sequence[str], fps: float | None, resolution: Resolution
    ) -> None:
        """Raises DataError if the resolution changes with the number of frames: earlier frames would have to be encoded again."""
        if resolution.rule != "milepost":
            raise DataError(f"under the rule '{resolution.rule}' frames change size as a clip grows; a stream needs rule='milepost'")
        if fps is not None and not fps > 0:
            raise DataError(f"fps should be above zero, it is {fps}")
        self.frames = 0
        self._engine, self._instructions, self._answers = engine, instructions, answers
        self._fps, self._resolution = fps, resolution
        self._cache: PrefixCache | None = None
        self._last: tuple[UInt8[np.ndarray, "H W 3"], float] | None = None

    def append(self, frame: UInt8[np.ndarray, "H W 3"], time_s: float | None = None) -> Float[np.ndarray, "I A"]:
        """Returns log p(answer | the frames so far, instruction). time_s: needed where no fps was given. DataError if a frame has another
        shape.
        """
        if (time_s is None) == (self._fps is None):
            raise DataError("when was this frame taken? give fps to stream(...), or time_s with every frame, not both")
        now = self.frames / self._fps if self._fps is not None else float(time_s or 0)
        before = self._last
        if before is not None and (frame.shape != before[0].shape or now < before[1]):
            raise DataError(
                f"a frame of {frame.shape} at {now} s follows one of {before[0].shape} at {before[1]} s; a clip has one shape, in order"
            )
        height, width = make_clip(frame[None], times_s=[now], fps=None, resolution=self._resolution).frames.shape[1:3]
        size = self._engine.processor.size(self._resolution, frames=PAIR, height=height, width=width)
        branch = None
        if self.frames % PAIR and before is not None:
            group = np.stack([before[0], frame]), middle(before[1], now)
            self._cache = self._engine.extend(self._cache, size=size, group=group)
        else:
            branch = np.stack([frame, frame]), middle(now, now)
        logprobs = self._engine.probe(self._cache, size=size, branch=branch, instructions=self._instructions, answers=self._answers)
        self._last, self.frames = (frame.copy(), now), self.frames + 1
        return logprobs

    def snapshot(self) -> tuple[Any, ...]:
        """Returns what `restore` needs."""
        ends = None if self._cache is None else (self._cache.ends, self._cache.next_positions)
        return self._cache, ends, self._last, self.frames

    def restore(self, snapshot: tuple[Any, ...]) -> None:
        """Makes the stream what it was at this snapshot: it forgets the frames since."""
        self._cache, ends, self._last, self.frames = snapshot
        if self._cache is not None:
            self._cache.commit(*ends)
