from .address import BindAddress as BindAddress
from .address import bind as bind
from .bodies import answer as answer
from .bodies import limited as limited
from .protocol import TimeoutProtocol as TimeoutProtocol
from .reward_server import make_reward_server as make_reward_server
