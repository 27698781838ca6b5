"""Sets that TensorFlow Datasets has prepared, as a `Folder`, read without TensorFlow.

read.py is where to start. sets.py is the only user of TFDS here, which takes most of a second to
import; shards.py has the tables beside the shards of our own sets.
"""
