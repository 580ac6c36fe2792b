"""Figures in one style: an episode's frames, curves and stages; weights and deltas. Colour-blind safe, readable in grey.

A stage has the same colour everywhere. matplotlib's Figure is used directly, so no global state and no display.
"""

from milepost.plots.annotation import AnnotationPicture as AnnotationPicture
from milepost.plots.annotation import HeadTimeline as HeadTimeline
from milepost.plots.annotation import annotation_figure as annotation_figure
from milepost.plots.annotation import middle_frame as middle_frame
from milepost.plots.dropped import DroppedSpan as DroppedSpan
from milepost.plots.dropped import dropped_figure as dropped_figure
from milepost.plots.dropped import span_frames as span_frames
from milepost.plots.episode import NARROWEST as NARROWEST
from milepost.plots.episode import EpisodePicture as EpisodePicture
from milepost.plots.episode import HeadPicture as HeadPicture
from milepost.plots.episode import episode_figure as episode_figure
from milepost.plots.episode import sample_frames as sample_frames
from milepost.plots.style import FORMATS as FORMATS
from milepost.plots.style import STAGE_COLOURS as STAGE_COLOURS
from milepost.plots.style import Format as Format
from milepost.plots.style import boxes as boxes
from milepost.plots.style import drawn as drawn
from milepost.plots.style import png as png
from milepost.plots.style import words_of as words_of
from milepost.plots.weights import LabPicture as LabPicture
from milepost.plots.weights import lab_figure as lab_figure
from milepost.plots.weights import weights_figure as weights_figure
