from .opening import open_source as open_source
from .source import Choices as Choices
from .writing import import_source as import_source
