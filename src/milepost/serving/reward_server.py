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
from milepost.serving.service import ServerConfig, Service


def make_reward_server(
    sessions: Sessions, address: BindAddress, about: Mapping[str, Any], config: ServerConfig | None = None
) -> uvicorn.Server:
    """Returns a server that is ready to run on the socket of this address. about: what GET /model_info answers."""
    config = config or ServerConfig()
    app = create_app(Service(sessions, about, config))
    return uvicorn.Server(quiet_config(Access(app, address, config.largest), largest_message=config.largest))
