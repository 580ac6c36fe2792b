from .configuration_sarm import SARMConfig as SARMConfig
from .modeling_sarm import SARMModel as SARMModel
