"""The formats in which a figure can be written. No matplotlib: the command line offers them."""

from typing import Literal

FORMATS = ("png", "svg", "pdf")
Format = Literal["png", "svg", "pdf"]
