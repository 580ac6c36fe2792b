from .export import export_html as export_html
from .marks import Marks as Marks
from .marks import marks_file as marks_file
from .media import VideoCache as VideoCache
from .review import Model as Model
from .review import Review as Review
from .serving import bind as bind
from .serving import make_server as make_server
