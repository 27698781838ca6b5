"""Experiments, one file each: `python -m experiments.scratch`."""

import sys

from jaxgear.machine.huge_pages import restart_with_huge_pages
from jaxgear.machine.xla_flags import set_xla_flags

if sys.argv[0] == "-m":  # this package is about to be run, not imported
    set_xla_flags()
    restart_with_huge_pages()
