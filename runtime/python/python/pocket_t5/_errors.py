"""What can go wrong. Each message is one sentence: what, where, what was expected, and what was found."""


class Error(Exception):
    """Anything that goes wrong in this package."""


class ModelError(Error, ValueError):
    """What was to be opened is no model, or not one that can be run."""


class OptionError(Error, ValueError):
    """An option or an argument is unknown, out of range, or contradicts another one."""


class FileError(Error, OSError):
    """A file cannot be read or written, or was written while it was in use."""


class MissingFileError(FileError, FileNotFoundError):
    """A file or folder is not there."""


class HubError(Error, OSError):
    """The model hub cannot be reached, or does not have the model."""


class NoMemoryError(Error, MemoryError):
    """There is not enough memory."""


for _error in (Error, ModelError, OptionError, FileError, MissingFileError, HubError, NoMemoryError):
    _error.__module__ = "pocket_t5"
