"""Commands about runs: an experiment file to start from; a report or a comparison of run folders.

report.py is where to start.
"""
