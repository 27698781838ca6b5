"""Tells images of gear from all others: a score of gear, and the threshold below which to refuse.

refusal.py is where to start: the threshold. evidence.py adds evidence of gear to the logits.
"""
