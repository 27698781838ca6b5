"""Work on the nodes of a cluster: a function and items in, results in order out.

ray.py is where to start. Training on several hosts needs none of it (machine/devices.py).
"""

from jaxgear.cluster.ray import Cluster

__all__ = ["Cluster"]
