"""Gear, or none: what speaks for gear in an image, and from which score on it is taken for gear.

refusal.py is where to start: the threshold. evidence.py is what is added to the logits.
"""
