"""Which device computes."""

from __future__ import annotations

import torch


def resolve_device(name: str) -> str:
    """Returns the device by name; "auto" is the GPU if there is one. ValueError if a GPU is asked for and torch sees none."""
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise ValueError(f"--device {name}: torch sees no GPU here; use --device cpu")
    return name
