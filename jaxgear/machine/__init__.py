"""The machine: devices and hosts, huge pages, XLA's flags, cached programs, free memory, traces.

devices.py is where to start. process.py and huge_pages.py act before JAX is imported; lacking.py
names what is missing when something fails; profiler.py traces training steps.
"""
