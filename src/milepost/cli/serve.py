"""Serve progress while robots move: each frame gets a number as it comes.

The server follows attempts frame by frame, for one robot or many.
"""

from __future__ import annotations

import json as json_module
import math
from dataclasses import dataclass
from socket import gethostname
from typing import Annotated, Literal

import tyro

from milepost import encoders, metrics, models, online, serving
from milepost.cli.console import closed_after, say, warn
from milepost.core import DataError, HasWeights, Identified, RewardModel


@dataclass(frozen=True)
class Args:
    model: Annotated[str, tyro.conf.arg(aliases=["--reward-model-path"])]
    """Model folder or Hub id (SARM with a causal window, a value model, a success head, TOPReward), or a model of another package."""
    host: str = "127.0.0.1"
    """Address to listen on. Beyond this machine (0.0.0.0), a token is needed, which is printed."""
    port: int = 7340
    """Port; the next free one if it is taken; 0 for any."""
    device: str = "auto"
    vlm_name: str | None = None
    """With --model topreward: the VLM, a folder or a Hub id."""
    success_threshold: float | None = None
    """Progress from which an attempt counts as successful. Default: the model's own, else 0.9."""
    success_release: float | None = None
    """Progress below which a success is taken back. Default: 0.1 below the threshold."""
    success_hold: int = 5
    """For how many frames in a row progress must be at the threshold."""
    shaping: Literal["potential", "difference", "absolute"] = "potential"
    """The reward of a step: gamma * phi(s') - phi(s) leaves the optimal policy as it is, phi(s') - phi(s) and phi(s') do not."""
    gamma: float = 0.99
    """Discount of the learner, for --shaping potential."""
    threads: int | None = None
    """Processor threads of a pass. Default: 1 behind the built-in encoder, where more cost more than they save; else one for each core."""
    max_sessions: int = 64
    """Attempts that are followed at once."""
    max_frames: int = 20_000
    """Frames of one attempt."""
    idle_s: float = 600.0
    """An attempt without a frame for so many seconds makes room for another."""
    max_body_mb: int = 64
    """Largest request in MB."""
    max_waiting_mb: int = 2000
    """Memory in MB that episodes take while they wait for the model, those of /relabel and of Robometer's clients. Frames of robots that
    wait take at most 1 GB beside it."""
    video_fps: float = 1.0
    """Frames a second of the videos that Robometer's clients send to /evaluate_batch and /evaluate_batch_npy."""


def main(args: Args) -> int:
    """Loads the model, then serves until Ctrl-C. DataError for a model that cannot follow an attempt."""
    _check(args)
    options = {} if args.vlm_name is None else {"vlm_name": args.vlm_name}
    model = models.load_model(args.model, encoders.resolve_device(args.device), **options)
    with closed_after(model):
        models.use_threads(model, args.threads)
        sessions = online.Sessions(model, _config(args, model))
        sessions.end(_tried(sessions, args.model))
        socket, address = serving.bind(args.host, args.port)
        config = serving.ServerConfig(args.max_body_mb * 1_000_000, _cameras(model), args.video_fps, args.max_waiting_mb * 1_000_000)
        server = serving.make_reward_server(sessions, address, _about(args, model), config)
        if args.port and address.port != args.port:
            warn(f"port {args.port} is taken")
        say(f"{args.model}: {address.url.split('?')[0]}   (Ctrl-C ends it)")
        if address.token:
            say(f"from other machines: http://{gethostname()}:{address.port}   {online.TOKEN_ENV}={address.token}")
        try:
            server.run(sockets=[socket])
        except KeyboardInterrupt:
            pass
        finally:
            socket.close()
    say("milepost serve: ended")
    return 0


def _check(args: Args) -> None:
    """Checks all options before anything is loaded. ValueError names the flag of one outside its range."""
    if not 0 <= args.port <= 65535:
        raise ValueError(f"--port must be 0 to 65535, got {args.port}")
    threads = 1 if args.threads is None else args.threads
    counts = {"--threads": threads, "--success-hold": args.success_hold, "--max-sessions": args.max_sessions}
    counts |= {"--max-frames": args.max_frames, "--max-body-mb": args.max_body_mb, "--max-waiting-mb": args.max_waiting_mb}
    for flag, count in counts.items():
        if count < 1:
            raise ValueError(f"{flag} must be at least 1, got {count}")
    for flag, number in {"--idle-s": args.idle_s, "--video-fps": args.video_fps}.items():
        if not 0 < number < math.inf:
            raise ValueError(f"{flag} must be above 0 and finite, got {number:g}")
    for flag, score in {"--success-threshold": args.success_threshold, "--success-release": args.success_release}.items():
        if score is not None and not 0 <= score <= 1:
            raise ValueError(f"{flag} must be 0 to 1, as progress is, got {score:g}")
    if not 0 < args.gamma <= 1:
        raise ValueError(f"--gamma must be above 0 and at most 1, got {args.gamma:g}")


def _config(args: Args, model: RewardModel) -> online.SessionConfig:
    try:
        rule = online.success_rule(model, args.success_threshold, args.success_release, args.success_hold)
    except ValueError as error:
        raise ValueError(f"--success-release must not be above --success-threshold, nor above the model's own: {error}") from error
    return online.SessionConfig(
        rule,
        metrics.EventRules(),
        online.ShapingConfig(args.shaping, args.gamma),
        online.SessionLimits(args.max_sessions, args.max_frames, args.idle_s),
    )


def _cameras(model: RewardModel) -> tuple[str, ...]:
    """Returns what the model looks at; nothing for one of another package that does not say it."""
    return tuple(getattr(getattr(model, "config", None), "cameras", ()))


def _tried(sessions: online.Sessions, name: str) -> str:
    """Begins an attempt, so that all that the model needs is loaded, and returns its session. DataError names a model that cannot."""
    try:
        return sessions.begin(task="move", fps=10.0)
    except DataError as error:
        raise DataError(f"{name} cannot follow an attempt while it happens: {error}") from error


def _about(args: Args, model: RewardModel) -> dict[str, object]:
    about: dict[str, object] = {"model": args.model, "type": type(model).__name__}
    if isinstance(model, HasWeights):
        about["weights_sha256"] = model.weights_hash()
    if isinstance(model, Identified):
        about["config"] = json_module.loads(json_module.dumps(dict(model.identity())))
    return about
