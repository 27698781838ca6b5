"""Commands about finished runs: run folders in, a report or a comparison out.

report.py is where to start.
"""
