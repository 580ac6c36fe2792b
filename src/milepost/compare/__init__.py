"""Does weighting help? Policies trained with and without weights on simulated demonstrations of mixed quality, tried in closed loop.

`run(CompareConfig(...), folder, ...)` gives one line a policy; `rates` makes paired differences of them.
"""

from milepost.compare.arms import ARMS as ARMS
from milepost.compare.config import CompareConfig as CompareConfig
from milepost.compare.config import PoolConfig as PoolConfig
from milepost.compare.experiment import read_lines as read_lines
from milepost.compare.experiment import run as run
from milepost.compare.table import HEADER as HEADER
from milepost.compare.table import rates as rates
from milepost.compare.table import recovered as recovered
from milepost.compare.table import rows as rows
