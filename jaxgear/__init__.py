"""jaxgear: classify photographs of outdoor gear with JAX.

Importing the package is cheap: no submodule is imported and no device is touched.
"""

__version__ = "0.1.0"
