"""`jaxgear report`: a finished run in, one HTML page out.

render.py is where to start: the order of the sections. findings.py computes what they show.
"""
