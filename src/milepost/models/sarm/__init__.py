"""SARM, the stage-aware reward model: config, the two networks, training samples, the model."""

from milepost.models.sarm.batches import LabelledEpisode as LabelledEpisode
from milepost.models.sarm.batches import TrainingSet as TrainingSet
from milepost.models.sarm.batches import label_episode as label_episode
from milepost.models.sarm.checkpoint import StateStats as StateStats
from milepost.models.sarm.checkpoint import read_state_stats as read_state_stats
from milepost.models.sarm.config import AnnotationMode as AnnotationMode
from milepost.models.sarm.config import SARMConfig as SARMConfig
from milepost.models.sarm.model import SARMModel as SARMModel
