"""Packages of the wheel: `experiments` is `jaxgear.experiments` there. pyproject.toml has the rest.

A package named `experiments` would hide, or be hidden by, a folder of that name of a user.
"""

from setuptools import find_packages, setup

setup(
    packages=[*find_packages(include=["jaxgear*"]), "jaxgear.experiments"],
    package_dir={"jaxgear.experiments": "experiments"},
)
