from .address import BindAddress as BindAddress
from .address import bind as bind
from .address import is_loopback as is_loopback
from .bodies import answer as answer
from .bodies import limited as limited
from .protocol import TimeoutProtocol as TimeoutProtocol
