from .sessions import Moment as Moment
from .sessions import Reading as Reading
from .sessions import SessionConfig as SessionConfig
from .sessions import SessionLimits as SessionLimits
from .sessions import Sessions as Sessions
from .shaping import Shaper as Shaper
from .shaping import ShapingConfig as ShapingConfig
from .trend import Trend as Trend
