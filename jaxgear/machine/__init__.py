"""What sets the machine up: devices and hosts, huge pages, XLA's flags, compiled programs, memory.

devices.py is where to start. huge_pages.py and xla_flags.py act before JAX is imported.
"""
