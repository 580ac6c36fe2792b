"""GVL as one of the kinds of reward models."""

from __future__ import annotations

from milepost.models.gvl.model import GVLModel
from milepost.models.gvl.options import GVLOptions
from milepost.models.zero_shot.kind import kind_of_class

MODEL = kind_of_class(GVLModel, GVLOptions)
