from .configuration_topreward import TOPRewardConfig as TOPRewardConfig
from .modeling_topreward import TOPRewardModel as TOPRewardModel
