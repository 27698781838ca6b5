"""Experiments, one file each: `python -m experiments.scratch`."""

import sys

from jaxgear.machine.huge_pages import restart_with_huge_pages
from jaxgear.machine.process import set_up_process

if sys.argv[0] == "-m":  # this package is about to be run, not imported
    set_up_process()
    restart_with_huge_pages()
