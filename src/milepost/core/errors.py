"""What goes wrong with a user's data, in four classes."""

import re


class DataError(ValueError):
    """The user's data, folder or file is not what it should be. The message says what was expected, what came and what to do.

    >>> try:
    ...     milepost.open_dataset("no folder")
    ... except milepost.DataError as error:
    ...     print(str(error).endswith("it is not a Hub dataset id like 'lerobot/pusht'"))
    True
    """


class UnreadableError(DataError):
    """One episode cannot be used: its images are missing, damaged or too short, or it is too long for the model. Others may be fine."""


class ModelError(ValueError):
    """A reward model breaks its contract. The message says what was expected and what came."""


class DataWarning(UserWarning):
    """The user's data has a fault but was read. The message says what is wrong and how the data was understood."""


def bare_reason(reason: object, episode: int) -> str:
    """Returns why an episode cannot be used, without the number of the episode in front, for a message that has said it.

    >>> bare_reason("episode 3: its video is cut off", 3), bare_reason("episode 3 has no task", 3), bare_reason("no video of 3", 3)
    ('its video is cut off', 'it has no task', 'no video of 3')
    """
    words = re.sub(rf"^episode {episode}(: |, )", "", str(reason))
    return re.sub(rf"^episode {episode} (?=has )", "it ", words)


def plain_reason(error: Exception) -> str:
    """Returns why a JSON file of ours could not be used, without words of Python: what is missing, or that a part has another form.

    >>> plain_reason(KeyError("episode")), plain_reason(TypeError("'int' object is not iterable")), plain_reason(ValueError("it is empty"))
    ("'episode' is missing", 'a part of it has another form', 'it is empty')
    """
    if isinstance(error, KeyError):
        return f"{error} is missing"
    return "a part of it has another form" if isinstance(error, TypeError | AttributeError) else str(error)
