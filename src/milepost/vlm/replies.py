"""What a model server sent back, read within bounds: a limit of bytes after decompression, a limit of JSON depth, the server's own words.

An error may come with its status, or inside a 200 (gateways do that): both become one `Problem`. The words of a server are quoted on one
line, without control characters, and are cut short, so that a terminal obeys nothing in them. Compressions that were not asked for are
refused.
"""

from __future__ import annotations

import json
import re
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from milepost.core import parse_json

if TYPE_CHECKING:
    import httpx2

MOST = 8_000_000
"""The most bytes of a decompressed reply: thousands of times the size of an answer."""
MOST_OF_ERROR = 200_000
QUOTED = 500
LOOKED_AT = 10_000
"""The most letters of a server's words that are examined."""
AGAIN = frozenset({408, 409, 425, 429, 500, 502, 503, 504, *range(520, 531), 598, 599})
"""Statuses that pass: the request's time ran out, somebody else's lock, too early, too many, and what servers and the proxies before them
say while they are restarted or overloaded."""
_PASSES = re.compile(
    r"rate.?limit|too.many.requests|overload|unavailable|time.?d?.?out|exhausted|capacity|server.error|internal", re.IGNORECASE
)
_PASSES_IN_WORDS = re.compile(r"rate.?limit|too many requests|overloaded|try again|retry|temporar", re.IGNORECASE)
_STAYS = re.compile(r"insufficient.?quota|exceeded your current quota|billing|payment|credit", re.IGNORECASE)
_REFUSES = re.compile(
    r"unsupported|not support|unrecogni[sz]ed|unknown (field|param|arg)|unexpected (keyword|field)|not permitted", re.IGNORECASE
)
TOO_LONG = re.compile(
    r"maximum (model |context |sequence |input |prompt )?(length|context)|context[ _-]?(length|window|size|limit)|max_model_len|too long"
    r"|(prompt|input|request|payload|entity)\b.{0,80}(too large|exceed)|exceeds?\b.{0,60}\b(tokens|context)|too many (tokens|images)"
    r"|at most \d+ (image|picture)|less than \d+ tokens|reduce the (length|number)|context the overflows|\d tokens? > \d+",
    re.IGNORECASE | re.DOTALL,
)
"""How servers say that a prompt does not fit: OpenAI, vLLM, SGLang, llama.cpp, LM Studio, TGI, Gemini, Anthropic, and proxies."""


class UnboundedError(Exception):
    """The body is larger than the bounds."""


class PackedError(Exception):
    """The body is compressed in a way that was not asked for, or its compression is broken."""


@dataclass(frozen=True)
class Problem:
    """What the server says is wrong. status: HTTP's, or the one in the body of a 200 (200 if it names none). param: the field that it
    blames.
    """

    status: int
    words: str
    param: str = ""

    @property
    def passes(self) -> bool:
        """Returns whether another try may succeed."""
        refuses = _STAYS.search(self.words) or (self.status >= 500 and (_REFUSES.search(self.words) or self.too_long))
        return self.status in AGAIN and not refuses

    @property
    def too_long(self) -> bool:
        """Returns whether this prompt is too large for the server, where a smaller one may not be."""
        return self.status == 413 or (self.status != 429 and TOO_LONG.search(self.words) is not None)


def quoted(text: str, most: int = QUOTED) -> str:
    """Returns somebody else's words for a message: on one line, without characters that do not print, cut short.

    >>> quoted("busy\\x1b[31m,\\n  wait")
    'busy [31m, wait'
    """
    line = " ".join("".join(letter if letter.isprintable() else " " for letter in text[:LOOKED_AT]).split())
    return line if len(line) <= most else f"{line[:most]}..."


async def read_body(response: httpx2.Response, *, most: int = MOST, whole: bool = True, started: Callable[[], None]) -> bytes:
    """Returns the decompressed body. started: called once, with its first byte that is no space (servers keep a connection alive with
    spaces).

    UnboundedError for more than `most` bytes; with whole=False so many are returned instead. PackedError if it cannot be unpacked.
    """
    packing = response.headers.get("Content-Encoding", "").strip().lower()
    if packing not in ("", "identity", "gzip", "x-gzip", "deflate"):
        raise PackedError(f"it is packed as '{quoted(packing, 40)}', which was not asked for")
    unpack = None if packing in ("", "identity") else zlib.decompressobj(wbits=47)  # gzip or zlib, by its first bytes
    out, has_begun = bytearray(), False
    async for chunk in response.aiter_raw():
        try:
            out += chunk if unpack is None else unpack.decompress(chunk, most + 1 - len(out))
        except zlib.error as error:
            raise PackedError("its packing is broken") from error
        if not has_begun and out.strip():
            has_begun = True
            started()
        if len(out) > most:
            if whole:
                raise UnboundedError(f"it is longer than {most // 1_000_000} MB")
            break
    return bytes(out[:most])


def parse(content: bytes) -> Any:
    """Returns the JSON of a body. ValueError if it is no JSON, is nested too deep, or has numbers of thousands of digits."""
    return parse_json(content, source="the reply")


def problem_of(status: int, content: bytes) -> Problem:
    """Returns the problem of a reply with this status."""
    try:
        body = parse(content)
    except ValueError:
        body = None
    text = content.decode("utf-8", "replace").strip() or "(nothing)"
    fields = _fields(body)
    return Problem(status, (_words(fields) or text)[:LOOKED_AT], _param(fields))


def problem_inside(reply: Any) -> Problem | None:
    """Returns the error that stands in the body of a 200 in place of an answer, None if there is none."""
    fields = _fields(reply)
    choices = fields.get("choices")
    first = choices[0] if isinstance(choices, list) and choices and isinstance(choices[0], dict) else {}
    error = fields.get("error") or first.get("error")
    if not error and not first and (fields.get("object") == "error" or ("message" in fields and "code" in fields)):
        error = fields
    if not error:
        return None
    words = (_words({"error": error}) or json.dumps(error))[:LOOKED_AT]
    return Problem(_status(error if isinstance(error, dict) else {}, fields, words), words, _param({"error": error}))


def _fields(body: Any) -> Mapping[str, Any]:
    """Returns the object itself, or the only one of a list, as Google's servers send it."""
    if isinstance(body, list) and len(body) == 1:
        body = body[0]
    return body if isinstance(body, dict) else {}


def _words(fields: Mapping[str, Any]) -> str:
    """Returns the server's own words, wherever this kind of server has them, with those of the server behind it."""
    for path in (("error", "message"), ("message",), ("detail",), ("error",)):
        value: Any = fields
        for name in path:
            value = value.get(name) if isinstance(value, dict) else None
        if value:
            words = value if isinstance(value, str) else json.dumps(value)
            error = fields.get("error")
            metadata = error.get("metadata") if isinstance(error, dict) else None
            behind = metadata.get("raw") if isinstance(metadata, dict) else None
            return f"{words}: {behind if isinstance(behind, str) else json.dumps(behind)}" if behind else words
    return ""


def _param(fields: Mapping[str, Any]) -> str:
    error = fields.get("error")
    param = (error if isinstance(error, dict) else fields).get("param")
    return param if isinstance(param, str) else ""


def _status(error: Mapping[str, Any], reply: Mapping[str, Any], words: str) -> int:
    """Returns the status that an error without one stands for; 200 if it cannot be known."""
    names = ("code", "status", "status_code", "http_status", "type")
    values = [
        each for each in (*(error.get(name) for name in names), *(reply.get(name) for name in names[:4])) if isinstance(each, int | str)
    ]
    for each in values:
        if re.fullmatch(r"[1-5]\d\d", str(each)):
            return int(each)
    kinds = " ".join(map(str, values))
    if _STAYS.search(f"{kinds} {words}"):
        return 402
    return 503 if _PASSES.search(kinds) or _PASSES_IN_WORDS.search(words) else 200
