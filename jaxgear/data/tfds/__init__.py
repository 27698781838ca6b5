"""Reads prepared TensorFlow Datasets sets as a `Folder`, without TensorFlow.

read.py is where to start. Only sets.py uses TFDS, which takes most of a second to import. shards.py
writes the shards of our own sets. tables.py reads what lies beside them: parts.py the table of a
shard, columns.py the columns of all records, descriptors.py a descriptor on demand. older.py makes
the columns of sets that have none.
"""
