"""What training sees: a source in, splits, batches and near-duplicate groups out.

dataset.py is where to start: it opens what `--data` names. batches.py and stream.py give its images
to the devices; sources.py finds new pictures that people name. The rest is in wings below.
"""
