"""The commands of `python -m jaxgear`, a module each.

A module's docstring is the command's help (`prepare.py` -> `jaxgear prepare`); it has
`add_arguments(parser)` and `run(arguments)`, which returns an exit code or None. Whatever is heavy
is imported inside `run`, so that `--help` and mistakes answer at once.
"""
