"""Fakes for people who test a reward model of their own: a world whose truth is known, a model server, tiny random models, a check.

No part of the package imports this, and it imports no test framework. docs/testing.md shows it at work.
"""

from milepost.testing.contract import check_reward_model as check_reward_model
from milepost.testing.dots import CAMERA as CAMERA
from milepost.testing.dots import NAMES as NAMES
from milepost.testing.dots import STAGES as STAGES
from milepost.testing.dots import ConstantModel as ConstantModel
from milepost.testing.dots import ListDataset as ListDataset
from milepost.testing.dots import dot_episode as dot_episode
from milepost.testing.dots import dot_episodes as dot_episodes
from milepost.testing.dots import dot_image as dot_image
from milepost.testing.dots import reduced_dots as reduced_dots
from milepost.testing.dots import write_dots as write_dots
from milepost.testing.server import VOCABULARY as VOCABULARY
from milepost.testing.server import ChatServer as ChatServer
from milepost.testing.server import Fault as Fault
from milepost.testing.server import Script as Script
from milepost.testing.server import TinyModel as TinyModel
from milepost.testing.server import chat_server as chat_server
from milepost.testing.server import render as render
from milepost.testing.tiny import tiny_clip as tiny_clip
from milepost.testing.tiny import tiny_sarm as tiny_sarm
from milepost.testing.tiny import tiny_vlm as tiny_vlm
