"""Vision-language models asked one question about many prefixes of a clip: log-probabilities of an answer, the clip read once.

`load_engine` opens a Qwen3-VL; its `clip`, `score`, `separate` and `stream` are the whole of it. `RemoteEngine` has the first two for one
that runs elsewhere; `server.py` under it needs no torch: the names here are imported when first used. No model of progress lives here.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from milepost.vlm.clip import Clip as Clip
    from milepost.vlm.loading import load_engine as load_engine
    from milepost.vlm.pictures import Pictures as Pictures
    from milepost.vlm.pictures import Resolution as Resolution
    from milepost.vlm.prompt import Prompt as Prompt
    from milepost.vlm.prompt import Script as Script
    from milepost.vlm.qwen3vl import Engine as Engine
    from milepost.vlm.remote import RemoteEngine as RemoteEngine
    from milepost.vlm.remote import RemoteScores as RemoteScores
    from milepost.vlm.server import Server as Server
    from milepost.vlm.stream import Stream as Stream
    from milepost.vlm.transport import ServerConfig as ServerConfig
    from milepost.vlm.transport import ServerError as ServerError

_WHERE = {
    "Clip": "clip",
    "Engine": "qwen3vl",
    "Pictures": "pictures",
    "Prompt": "prompt",
    "RemoteEngine": "remote",
    "RemoteScores": "remote",
    "Resolution": "pictures",
    "Script": "prompt",
    "Server": "server",
    "ServerConfig": "transport",
    "ServerError": "transport",
    "Stream": "stream",
    "load_engine": "loading",
}


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module 'milepost.vlm' has no attribute '{name}'")
    return getattr(importlib.import_module(f"milepost.vlm.{_WHERE[name]}"), name)
