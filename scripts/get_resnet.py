"""`python -m jaxgear get resnet` under its older name."""

import sys

from jaxgear.cli import main

if __name__ == "__main__":
    main(["get", "resnet", *sys.argv[1:]])
