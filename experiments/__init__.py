"""Experiments, one file each: `python -m experiments.scratch`."""

import sys

from jaxgear.huge_pages import restart_with_huge_pages

if sys.argv[0] == "-m":  # this package is about to be run, not imported
    restart_with_huge_pages()
