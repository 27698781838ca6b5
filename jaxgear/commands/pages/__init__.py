"""Commands that serve a page on this machine until Ctrl-C.

serve.py is where to start. server.py has the flags and limits of both.
"""
