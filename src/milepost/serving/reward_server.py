"""The reward server on a port: `milepost serve`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import uvicorn

from milepost.online import Sessions
from milepost.serving.access import Access
from milepost.serving.address import BindAddress
from milepost.serving.app import create_app
from milepost.serving.protocol import quiet_config
from milepost.serving.service import Service

LARGEST = 64_000_000
"""Largest request in bytes, if nothing else is said: about 70 images of 480 x 640."""


def make_reward_server(sessions: Sessions, address: BindAddress, about: Mapping[str, Any], *, largest: int = LARGEST) -> uvicorn.Server:
    """Returns a server that is ready to run on the socket of this address. about: what GET /model_info answers."""
    app = create_app(Service(sessions, about, largest=largest))
    return uvicorn.Server(quiet_config(Access(app, address, largest), largest_message=largest))
