"""Vision-language models: log-probabilities of an answer after many prefixes of a clip that is read once, and answers in words.

`load_engine` opens a Qwen3-VL; its `clip`, `score`, `separate` and `stream` give the log-probabilities. `RemoteEngine` gives the first two
for a model that runs elsewhere. `LocalChatModel` and `RemoteChatModel` answer in words. `server.py`, which the remote ones use, needs no
torch: the names here are imported when they are first used. No reward model lives here.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
