"""Vision-language models: log-probabilities of an answer after many prefixes of a clip that is read once, and answers in words.

`load_engine` opens a Qwen3-VL; its `clip`, `score`, `separate` and `stream` are the numbers. `RemoteEngine` has the first two for one
that runs elsewhere; `LocalSpeaker` and `RemoteSpeaker` answer in words. `server.py` under the remote ones needs no torch: the names here
are imported when first used. No model of progress lives here.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
