from .core import DataError as DataError
from .core import Episode as Episode
from .core import Progress as Progress
from .core import Segment as Segment
from .core import Stages as Stages
from .datasets import open_dataset as open_dataset
from .models import TOPREWARD_FEATURE_PREFIX as TOPREWARD_FEATURE_PREFIX
from .models import ElapsedModel as ElapsedModel
from .models import SARMConfig as SARMConfig
from .models import SARMModel as SARMModel
from .models import TOPRewardConfig as TOPRewardConfig
from .models import TOPRewardModel as TOPRewardModel
from .models import load_model as load_model
from .models import make_reward_model as make_reward_model
from .models import make_reward_model_config as make_reward_model_config
from .models import make_reward_pre_post_processors as make_reward_pre_post_processors
from .progress import label as label
from .progress import read_progress as read_progress
from .weights import RabcConfig as RabcConfig
from .weights import SampleWeights as SampleWeights
from .weights import UniformWeights as UniformWeights
from .weights import WeightedSampler as WeightedSampler
from .weights import weigh as weigh
from .weights import weighted_mean as weighted_mean

__version__: str
