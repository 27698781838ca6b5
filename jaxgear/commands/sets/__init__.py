"""Commands about a set of pictures: a folder in, counts, suggestions or a prepared set out.

check.py is where to start.
"""
