from .cluster import Cluster as Cluster
from .options import RayOptions as RayOptions
from .options import with_address as with_address
from .tally import Tally as Tally
from .work import Failure as Failure
from .work import once as once
from .work import spread as spread
