"""Checks signatures under pytest: beartype, which accepts an int for a float."""

import beartype

check = beartype.beartype(conf=beartype.BeartypeConf(is_pep484_tower=True))
