"""Accuracy on damaged images: corruptions of five severities, and folders of other images.

measure.py is where to start. corruptions.py damages images.
"""
