"""Composites: objects cut out of catalogue images, pasted on backgrounds.

pasted.py is where to start: it makes splits with pasted images, for validation and for the
threshold of no gear. masks.py cuts objects out; bank.py has the backgrounds.
"""

from jaxgear.data.composites.bank import background_bank, photographs
from jaxgear.data.composites.masks import cutout, with_masks
from jaxgear.data.composites.pasted import is_pasted, program_sha256, scene_split, with_pasted

__all__ = [
    "background_bank",
    "cutout",
    "is_pasted",
    "photographs",
    "program_sha256",
    "scene_split",
    "with_masks",
    "with_pasted",
]
