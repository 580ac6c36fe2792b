"""Vision-language models asked one question about many prefixes of a clip: log-probabilities of an answer, the clip read once.

`load_engine` opens a Qwen3-VL; its `clip`, `score`, `separate` and `stream` are the whole of it. No model of progress lives here.
"""

from milepost.vlm.clip import Clip as Clip
from milepost.vlm.loading import load_engine as load_engine
from milepost.vlm.pictures import Pictures as Pictures
from milepost.vlm.pictures import Resolution as Resolution
from milepost.vlm.prompt import Prompt as Prompt
from milepost.vlm.prompt import Script as Script
from milepost.vlm.qwen3vl import Engine as Engine
from milepost.vlm.stream import Stream as Stream
