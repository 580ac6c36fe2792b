"""Any OpenAI-compatible chat/completions server (vLLM, SGLang, llama.cpp, hosted): next-token log-probabilities, and answers in words.

    with ChatClient(ServerConfig("http://localhost:8000/v1", "Qwen/Qwen3-VL-8B-Instruct")) as server:
        scores = server.next_token(prompts)  # [{"True": TokenScore, "False": TokenScore}, ...], in order
        replies = server.complete(prompts, json_schema=schema)

Many requests are under way at once, never more than `concurrency`; several threads may share one server. Requests run in a thread of their
own, so this works in notebooks, and Ctrl-C ends them at once.
"""

from __future__ import annotations

import asyncio
import math
import re
import threading
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, TypeVar

import numpy as np

from milepost.core import DataError, Tick
from milepost.vlm.dialect import Dialect
from milepost.vlm.logprobs import NumberedTokensError, Spelling, TokenScore, listed_after, listed_tokens, score_answers
from milepost.vlm.replies import quoted
from milepost.vlm.transport import MalformedError, NoLogprobsError, RefusedError, ServerConfig, Transport, UnfinishedTurnError, Usage

MessageDict = Mapping[str, Any]
"""{"role": "user", "content": text or a list of content parts}"""
ServerPrompt = str | Sequence[MessageDict]
"""A conversation; a text alone is one message of the user."""

Result = TypeVar("Result")

UNFINISHED_TURN = {"add_generation_prompt": False, "continue_final_message": True}
"""vLLM's words for a last message, the user's or the assistant's, that is not closed: the next token continues it. A server that does not
know them may ignore them without a word, and the number is then that of another prompt: so it is checked."""


CUT = ("length", "max_tokens", "max_output_tokens", "model_length", "content_filter")
"""Servers' words for an answer that ended before the model was done."""
REFUSED = (200, 400, 422)
"""Statuses with which a server refuses a part of a request; 200: an error in the body that names no other."""
MOST_CHANGES = 8
"""How often one request may be changed to what a server takes."""
UNLISTED = 0.01
"""The most probability that tokens which are not listed may have together, where the mean over a few choices is computed."""
REASONING = ("reasoning_content", "reasoning", "thinking")
"""Fields in which servers put a model's reasoning."""


@dataclass(frozen=True)
class Reply:
    """One answer in words. finish: why it ended; "length" means that it was cut. refusal: what a hosted model says in place of an answer.
    reasoning: words that the server separates from the answer.
    """

    text: str
    finish: str = ""
    refusal: str = ""
    reasoning: str = ""

    @property
    def cut(self) -> bool:
        """Returns whether the answer ended before the model was done."""
        return self.finish.lower() in CUT


class ChatClient:
    """An open connection to a model server. Close it, or use `with`. What the server turned out not to take is remembered while it is open.

    rng: where the jitter of retries comes from; same generator, same waits, whatever the order in which answers arrive. addresses: as of
    `Transport`.
    """

    def __init__(self, config: ServerConfig, *, rng: np.random.Generator | None = None, addresses: tuple[str, str] | None = None) -> None:
        self.config = config
        self.top_logprobs = config.top_logprobs
        """How many tokens the server lists, as far as is known."""
        self.takes_schema = True
        """False once the server has refused a JSON schema and answered without one."""
        self.leaves_open = False
        """True once the server has shown that it leaves a message open on request."""
        self.dialect = Dialect(config.extra_body)
        """What the server does not take; `str(server.dialect)` describes it."""
        self._transport = Transport(config, addresses=addresses)
        self._slots = asyncio.Semaphore(config.concurrency)
        self._rng, self._lock, self._checking = rng or np.random.default_rng(), threading.Lock(), threading.Lock()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="milepost-server", daemon=True)
        self._thread.start()

    def __repr__(self) -> str:
        return f"ChatClient({self.config!r})"

    def __enter__(self) -> ChatClient:
        return self

    def __exit__(self, *problem: object) -> None:
        self.close()

    def close(self) -> None:
        """Ends the requests under way and closes every connection. It may be called twice."""
        if self._loop.is_closed():
            return
        asyncio.run_coroutine_threadsafe(self._shut(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    @property
    def usage(self) -> Usage:
        """Returns requests, retries, tokens, seconds and cost so far."""
        return self._transport.usage

    @property
    def notes(self) -> tuple[str, ...]:
        """Returns how this server differs from others, a line each: where it answers, what it does not take."""
        lines = (self._transport.moved, f"asked {self.dialect}, as it refused more" if str(self.dialect) else "")
        return tuple(line for line in lines if line)

    def next_token(
        self,
        prompts: Sequence[ServerPrompt],
        *,
        answers: Sequence[str] = ("True", "False"),
        spelling: Spelling = "exact",
        unfinished_turn: bool = False,
        on_progress: Tick | None = None,
    ) -> list[dict[str, TokenScore]]:
        """Returns, for each prompt, the log-probability of each answer as the next token, or a bound on it. A prompt stops before its
        answer.

        One token is generated at temperature 0. unfinished_turn: the last message is continued (`UNFINISHED_TURN`); else the assistant
        answers. spelling: whether " True" may stand for "True". ServerError, NoLogprobsError among them, ends the whole call; so does
        UnfinishedTurnError, before anything is asked, if the server would close the turn.
        """
        if not answers or len(set(answers)) != len(answers) or not all(answers):
            raise ValueError(f"answers should be distinct and not empty, got {list(answers)}")
        score_answers([("", 0.0)], answers, spelling)  # refuses an unknown spelling before anything is sent
        if unfinished_turn:
            self._require_open_turns()
        extra = UNFINISHED_TURN if unfinished_turn else {}

        async def ask(messages: list[MessageDict], rng: np.random.Generator) -> dict[str, TokenScore]:
            reply = await self._ask_tokens({"messages": messages, "max_tokens": 1, "temperature": 0, **extra}, rng)
            return score_answers(self._listed(reply, listed_tokens), answers, spelling)

        return self._all(prompts, ask, on_progress)

    def choose(
        self, prompts: Sequence[ServerPrompt], *, choices: Sequence[str], after: re.Pattern[str], max_tokens: int = 128
    ) -> list[tuple[dict[str, TokenScore], str]]:
        """Returns, for each prompt, the log-probability of each choice at the place in the greedy answer where one stands, and the answer.

        That place is the first token, but for spaces, behind words that `after` matches to their end. Without such a place no choice is
        listed. ServerError ends the whole call; so does NoLogprobsError, where the server lists too few tokens to compare the choices.
        """

        async def ask(messages: list[MessageDict], rng: np.random.Generator) -> tuple[dict[str, TokenScore], str]:
            reply = await self._ask_tokens({"messages": messages, "max_tokens": max_tokens, "temperature": 0}, rng)
            tokens = self._listed(reply, partial(listed_after, words=after))
            self._require_alternatives([math.exp(logprob) for _, logprob in tokens], len(choices))
            return score_answers(tokens, choices, "likelier"), words_of((self._choice(reply).get("message") or {}).get("content")) or ""

        return self._all(prompts, ask, None)

    def complete(
        self,
        prompts: Sequence[ServerPrompt],
        *,
        json_schema: Mapping[str, Any] | None = None,
        max_tokens: int = 2048,
        temperature: float = 0.0,
        seed: int | None = None,
        on_progress: Tick | None = None,
    ) -> list[Reply]:
        """Returns, for each prompt, an answer in words.

        json_schema: sent as `response_format`; a server that refuses it (400, 422) and answers without it is not sent one again, so the
        prompt should ask for the format too, and the answer be checked. ServerError ends the whole call.
        """

        async def ask(messages: list[MessageDict], rng: np.random.Generator) -> Reply:
            body = {"messages": messages, "max_tokens": max_tokens, "temperature": temperature, "seed": seed}
            return self._words(await self._ask_words(body, json_schema, rng))

        return self._all(prompts, ask, on_progress)

    def _require_open_turns(self) -> None:
        """Checks once, by two small requests, that the server leaves a message open: then it counts fewer tokens. UnfinishedTurnError if it
        does not.
        """
        advice = (
            "ask with the turn closed: unfinished_turn=False, in a Prompt chat_template=True, in a TOPReward config add_chat_template=True "
            "(the numbers are those of another prompt), or use a server that can, such as vLLM"
        )
        with self._checking:
            if self.leaves_open:
                return
            try:
                closed, opened = (self._prompt_tokens(turn) for turn in ({"add_generation_prompt": False}, UNFINISHED_TURN))
            except RefusedError as error:
                if error.status not in REFUSED or error.elsewhere:
                    raise
                raise UnfinishedTurnError(f"asked to leave the user's turn open, {error}; {advice}") from error
            if closed is None or opened is None:
                raise UnfinishedTurnError(f"{self.config.url} counts no tokens, so whether it leaves a turn open cannot be known; {advice}")
            if opened >= closed:
                raise UnfinishedTurnError(
                    f"{self.config.url} ignores continue_final_message: {closed} tokens with the turn closed, {opened} with it left open; "
                    f"{advice}"
                )
            self.leaves_open = True

    def _prompt_tokens(self, turn: Mapping[str, Any]) -> int | None:
        """Returns how many tokens the server makes of one word; None if it does not say."""

        async def count(messages: list[MessageDict], rng: np.random.Generator) -> int | None:
            reply = await self._post({"messages": messages, "max_tokens": 1, "temperature": 0, **turn}, rng)
            usage = reply.get("usage")
            tokens = usage.get("prompt_tokens") if isinstance(usage, dict) else None
            return tokens if isinstance(tokens, int) else None

        return self._all([[{"role": "user", "content": [{"type": "text", "text": "True"}]}]], count, None)[0]

    async def _ask_tokens(self, body: dict[str, Any], rng: np.random.Generator) -> dict[str, Any]:
        while True:
            top = self.top_logprobs
            try:
                return await self._post({**body, "logprobs": True, "top_logprobs": top}, rng)
            except RefusedError as error:
                if error.status not in REFUSED or "logprobs" not in error.words + error.param or top == 1:
                    raise
            self.top_logprobs = min(self.top_logprobs, top // 2)  # another request may have lowered it in the meantime

    async def _ask_words(self, body: dict[str, Any], schema: Mapping[str, Any] | None, rng: np.random.Generator) -> dict[str, Any]:
        if schema is not None and self.takes_schema:
            form = {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema, "strict": True}}
            try:
                return await self._post({**body, "response_format": form}, rng)
            except RefusedError as error:
                if error.status not in REFUSED or error.too_long or error.elsewhere:
                    raise
            reply = await self._post(body, rng)
            self.takes_schema = False  # only now: without an answer, the schema may not have been the reason
            return reply
        return await self._post(body, rng)

    async def _post(self, body: dict[str, Any], rng: np.random.Generator) -> dict[str, Any]:
        whole = {"model": self.config.model, **body, **self.config.extra_body}
        for _ in range(MOST_CHANGES):
            request = self.dialect.translate(whole)
            try:
                return await self._transport.post(request, rng)
            except RefusedError as error:
                if not self.dialect.learn(error, request):
                    raise
        return await self._transport.post(self.dialect.translate(whole), rng)

    def _choice(self, reply: dict[str, Any]) -> dict[str, Any]:
        choices = reply.get("choices")
        if not isinstance(choices, list) or not choices or not isinstance(choices[0], dict):
            fields = quoted(", ".join(sorted(reply)) or "none", 200)
            raise MalformedError(f"{self._transport.url} answered without choices; its fields are: {fields}")
        return choices[0]

    def _listed(
        self, reply: dict[str, Any], read: Callable[[Mapping[str, Any]], list[tuple[str, float]] | None]
    ) -> list[tuple[str, float]]:
        choice, url = self._choice(reply), self._transport.url
        try:
            tokens = read(choice)
        except NumberedTokensError as error:
            raise NoLogprobsError(
                f"{url}: {error}, so the answer cannot be found among them; start the server without --return-tokens-as-token-ids"
            ) from error
        except (ValueError, KeyError, TypeError, AttributeError, IndexError, OverflowError) as error:
            raise MalformedError(f"{url} sent log-probabilities that cannot be read: tokens with numbers up to 0 were expected") from error
        if tokens is None:
            raise NoLogprobsError(
                f"{url} answered without log-probabilities: this server or model gives none, or they are switched off there"
            )
        return tokens

    def _require_alternatives(self, probabilities: Sequence[float], choices: int) -> None:
        """Raises NoLogprobsError if fewer tokens than choices are listed, and their probabilities leave room for one that is not."""
        if 0 < len(probabilities) < choices and sum(probabilities) < 1 - UNLISTED:
            count = len(probabilities)
            what = f"lists {count} tokens at most"
            if count < self.top_logprobs:
                alone = "the token it chose alone" if count == 1 else f"{count} tokens alone"
                what = f"listed {alone}, with a probability of {sum(probabilities):.2f}, where top_logprobs asked for {self.top_logprobs}"
            raise NoLogprobsError(f"{self._transport.url} {what}: the mean over {choices} choices cannot be had from that")

    def _words(self, reply: dict[str, Any]) -> Reply:
        choice = self._choice(reply)
        message, finish = choice.get("message"), choice.get("finish_reason")
        text = words_of(message.get("content")) if isinstance(message, dict) else None
        if not isinstance(message, dict) or text is None:
            fields = quoted(", ".join(sorted(choice)), 200)
            raise MalformedError(f"{self._transport.url} answered without a message in words; the choice has: {fields}")
        refusal = message.get("refusal")
        reasoning = next((words for name in REASONING if (words := words_of(message.get(name)))), "")
        answer = Reply(text, finish if isinstance(finish, str) else "", refusal if isinstance(refusal, str) else "", reasoning)
        # vLLM's reasoning parser may take the whole answer for thoughts; a draft in the middle of thoughts is none
        if not text.strip() and not answer.refusal and not answer.cut and _ends_in_json(reasoning):
            return replace(answer, text=reasoning)
        return answer

    def _all(
        self,
        prompts: Sequence[ServerPrompt],
        ask: Callable[[list[MessageDict], np.random.Generator], Awaitable[Result]],
        report: Tick | None,
    ) -> list[Result]:
        if isinstance(prompts, str) or (len(prompts) and isinstance(prompts[0], Mapping)):
            raise ValueError("expected many prompts, got a single one; put it into a list")
        if self._loop.is_closed():
            raise DataError("this server is closed; open it again with ChatClient(config)")
        with self._lock:
            seed = int(self._rng.integers(2**63))
        future = asyncio.run_coroutine_threadsafe(self._gather(prompts, ask, (seed, report)), self._loop)
        try:
            return future.result()
        finally:
            future.cancel()  # Ctrl-C while waiting: nothing goes on behind the user's back

    async def _gather(
        self,
        prompts: Sequence[ServerPrompt],
        ask: Callable[[list[MessageDict], np.random.Generator], Awaitable[Result]],
        settings: tuple[int, Tick | None],
    ) -> list[Result]:
        seed, report = settings
        results: dict[int, Result] = {}
        positions = iter(range(len(prompts)))

        async def work() -> None:
            for position in positions:  # shared: whoever is free takes the next, and a lazy sequence is read only then
                async with self._slots:
                    prompt = prompts[position]
                    messages: list[MessageDict] = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else list(prompt)
                    results[position] = await ask(messages, np.random.default_rng((seed, position)))
                if report is not None:
                    report(len(results), len(prompts))

        try:
            await _together([work() for _ in range(min(self.config.concurrency, len(prompts)))])
        except ExceptionGroup as problems:  # the first that failed ended the others
            raise problems.exceptions[0] from problems.exceptions[0].__cause__
        return [results[position] for position in range(len(prompts))]

    async def _shut(self) -> None:
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)
        await self._transport.close()


def words_of(content: Any) -> str | None:
    """Returns the words of a message's content, which is a text, nothing, or parts with `text`. None if it is none of these."""
    if content is None:
        return ""
    if isinstance(content, str):
        return content
    if not isinstance(content, list | dict):
        return None
    content = [content] if isinstance(content, dict) else content
    parts = [part if isinstance(part, str) else part.get("text", "") if isinstance(part, dict) else None for part in content]
    return "".join(part for part in parts if isinstance(part, str)) if all(isinstance(part, str) for part in parts) else None


def _ends_in_json(text: str) -> bool:
    return text.rstrip().removesuffix("```").rstrip().endswith(("]", "}"))


async def _together(work: Sequence[Coroutine[Any, Any, None]]) -> None:
    async with asyncio.TaskGroup() as group:
        for one in work:
            group.create_task(one)


class OverServer:
    """A model behind a `ChatClient`: what that was asked, and its end."""

    _server: ChatClient

    @property
    def usage(self) -> Usage:
        """Returns requests, retries, tokens, seconds and cost so far; `str` of it is one line with the rate."""
        return self._server.usage

    @property
    def notes(self) -> tuple[str, ...]:
        """Returns how the server differs from others, see `ChatClient.notes`."""
        return self._server.notes

    def close(self) -> None:
        """Ends the requests under way and closes every connection. It may be called twice."""
        self._server.close()
