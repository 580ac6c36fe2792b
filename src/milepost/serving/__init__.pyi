from .address import BindAddress as BindAddress
from .address import bind as bind
from .bodies import Gate as Gate
from .bodies import Refusal as Refusal
from .protocol import quiet_config as quiet_config
from .reward_server import make_reward_server as make_reward_server
from .service import ServerConfig as ServerConfig
