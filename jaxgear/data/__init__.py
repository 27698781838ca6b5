"""Data for training: a source in; splits, batches and near-duplicate groups out.

dataset.py is where to start: it opens the set that `--data` names. batches.py and stream.py give
its images to the devices. sources.py finds sets and images by name. The wings below do the rest.
"""
