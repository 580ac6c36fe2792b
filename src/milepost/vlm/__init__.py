"""Vision-language models: log-probabilities of an answer after many prefixes of a clip that is read once, and answers in words.

`load_engine` opens a Qwen3-VL; its `clip`, `score`, `separate` and `stream` are the numbers. `RemoteEngine` has the first two for one
that runs elsewhere; `LocalSpeaker` and `RemoteSpeaker` answer in words. `server.py` under the remote ones needs no torch: the names here
are imported when first used. No model of progress lives here.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from milepost.vlm.clip import Clip as Clip
    from milepost.vlm.conversation import RemoteSpeaker as RemoteSpeaker
    from milepost.vlm.conversation import Speaker as Speaker
    from milepost.vlm.conversation import Turn as Turn
    from milepost.vlm.generate import LocalSpeaker as LocalSpeaker
    from milepost.vlm.loading import load_engine as load_engine
    from milepost.vlm.pictures import Pictures as Pictures
    from milepost.vlm.pictures import Resolution as Resolution
    from milepost.vlm.prompt import Prompt as Prompt
    from milepost.vlm.prompt import Script as Script
    from milepost.vlm.qwen3vl import Engine as Engine
    from milepost.vlm.qwen3vl import Stream as Stream
    from milepost.vlm.remote import RemoteEngine as RemoteEngine
    from milepost.vlm.remote import RemoteScores as RemoteScores
    from milepost.vlm.server import Server as Server
    from milepost.vlm.transport import ServerConfig as ServerConfig
    from milepost.vlm.transport import ServerError as ServerError

_WHERE = {
    "Clip": "clip",
    "Engine": "qwen3vl",
    "LocalSpeaker": "generate",
    "Pictures": "pictures",
    "Prompt": "prompt",
    "RemoteEngine": "remote",
    "RemoteScores": "remote",
    "RemoteSpeaker": "conversation",
    "Resolution": "pictures",
    "Script": "prompt",
    "Server": "server",
    "ServerConfig": "transport",
    "ServerError": "transport",
    "Speaker": "conversation",
    "Stream": "qwen3vl",
    "Turn": "conversation",
    "load_engine": "loading",
}


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module 'milepost.vlm' has no attribute '{name}'")
    return getattr(importlib.import_module(f"milepost.vlm.{_WHERE[name]}"), name)
