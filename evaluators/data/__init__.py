"""Data: where inputs and labels come from, and the rules they must obey before anything trains."""

from .arrays import from_arrays, from_dataset
from .data import Data
from .drifts import drifts
from .embedded import EMBEDDED, digits
from .files import from_npz, from_tsv, restore_data, save_data
from .opinions import opinions
from .pictures import from_folder, read_idx
from .sequences import from_clips, from_sequences
from .sources import FILES, Reading, load_data
from .texts import Vocabulary, from_texts, restricted

__all__ = [
    "EMBEDDED",
    "FILES",
    "Data",
    "Reading",
    "Vocabulary",
    "digits",
    "drifts",
    "from_arrays",
    "from_clips",
    "from_dataset",
    "from_folder",
    "from_npz",
    "from_sequences",
    "from_texts",
    "from_tsv",
    "load_data",
    "opinions",
    "read_idx",
    "restore_data",
    "restricted",
    "save_data",
]
