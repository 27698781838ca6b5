"""Reads prepared TensorFlow Datasets sets as a `Folder`, without TensorFlow.

read.py is where to start. Only sets.py uses TFDS, which takes most of a second to import. shards.py
reads and writes the shards of our own sets, and the tables beside them.
"""
