"""`python -m jaxgear`."""

from jaxgear.cli import main
from jaxgear.machine.process import set_xla_flags

if __name__ == "__main__":  # worker processes that decode images import this file too
    set_xla_flags()
    main()
