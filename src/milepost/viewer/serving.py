"""The server on a port, until Ctrl-C: the user's port, or the next free one."""

from __future__ import annotations

from types import FrameType

import uvicorn

from milepost.serving import BindAddress, quiet_config
from milepost.viewer.guard import Guard
from milepost.viewer.media import VideoCache
from milepost.viewer.review import Review
from milepost.viewer.server import create_app


class ReviewServer(uvicorn.Server):
    """A server that gives up background work as soon as it is asked to end, so that no request delays the end."""

    def __init__(self, config: uvicorn.Config, review: Review, videos: VideoCache) -> None:
        super().__init__(config)
        self._review, self._videos = review, videos

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self._videos.stop()
        self._review.stop()
        super().handle_exit(sig, frame)


def make_server(review: Review, address: BindAddress, videos: VideoCache | None = None) -> ReviewServer:
    """Returns a server that is ready to run on the socket of this address."""
    videos = videos or VideoCache()
    config = quiet_config(Guard(create_app(review, videos), address))
    return ReviewServer(config, review, videos)
