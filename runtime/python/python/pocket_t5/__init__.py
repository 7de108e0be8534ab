"""T5 models on a CPU: text in, text out.

>>> import pocket_t5
>>> model = pocket_t5.Model()
>>> model.generate("translate English to German: Where is the station?")
'Wo ist der Bahnhof?'

`Model()` is the model that comes with the package, which `help(pocket_t5.Model)` describes; `Model("model.gguf")`,
`Model("folder")` and `Model("hf:OWNER/NAME")` are others.
"""

from ._errors import Error, FileError, HubError, MissingFileError, ModelError, NoMemoryError, OptionError
from ._native import Alignment, BatchStream, Choice, Model, Output, Score, Stream, __version__

__all__ = [
    "Alignment",
    "BatchStream",
    "Choice",
    "Error",
    "FileError",
    "HubError",
    "MissingFileError",
    "Model",
    "ModelError",
    "NoMemoryError",
    "OptionError",
    "Output",
    "Score",
    "Stream",
    "__version__",
]
