"""Decodes the images of a folder on all cores: paths in, staged files and their columns out.

staging.py is where to start: it has a workshop.py in each process. images.py has what was staged as
columns. Nothing is imported here, so that worker processes start fast.
"""
