"""A run folder: config, history, checkpoints, and a lock. Each file is complete or absent.

run.py is where to start: an open run. folder.py makes and describes its folder; environment.py
records versions and devices; checkpoints.py is the only user of Orbax.
"""
