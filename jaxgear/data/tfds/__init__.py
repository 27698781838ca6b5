"""Reads prepared TensorFlow Datasets sets as a `Folder`, without TensorFlow.

read.py is where to start. Only sets.py uses TFDS, which takes most of a second to import. shards.py
writes the shards of our own sets and the tables beside them. tables.py reads the tables as columns:
npz.py their arrays, descriptors.py the descriptors on demand.
"""
