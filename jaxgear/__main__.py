"""`python -m jaxgear`."""

from jaxgear.cli import main

main()
