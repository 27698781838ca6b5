"""`python -m jaxgear`."""

from jaxgear.cli import main

if __name__ == "__main__":  # processes that decode pictures import this file too
    main()
