"""`python -m jaxgear get gear` under its older name."""

import sys

from jaxgear.cli import main

if __name__ == "__main__":
    main(["get", "gear", *sys.argv[1:]])
