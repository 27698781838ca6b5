"""A module for each command of `python -m jaxgear`: its flags, and what it does with them.

`cli` imports the one that was asked for.
"""
