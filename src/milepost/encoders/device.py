"""Which device computes."""

from __future__ import annotations

import torch

from milepost.core import DataError


def resolve_device(name: str) -> str:
    """Returns the device by name; "auto" is the GPU if there is one. ValueError if a GPU is asked for and torch sees none, or there
    is no such device."""
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise ValueError(f"--device {name}: torch sees no GPU here; use --device cpu")
    require_device(name)
    return name


def require_device(device: str | torch.device) -> torch.device:
    """Returns the device by name. DataError if torch knows no such device, or sees none of that kind here."""
    try:
        found_device = torch.device(device)
    except RuntimeError as error:
        raise DataError(f"there is no device '{device}'; use cpu, cuda or cuda:1") from error
    if found_device.type == "cuda" and not torch.cuda.is_available():
        raise DataError(f"device '{device}': torch sees no GPU here; use device='cpu'")
    return found_device
