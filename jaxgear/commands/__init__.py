"""A module for each command of `python -m jaxgear`: its flags and its work.

`cli` imports them; each imports heavy libraries only when it runs.
"""
