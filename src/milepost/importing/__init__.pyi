from .opening import open_source as open_source
from .source import Choices as Choices
from .writing import import_source as import_source
from .writing import require_new_folder as require_new_folder
