"""`jaxgear review`: pictures and their labels, looked at and corrected by a person.

session.py is where to start: what is shown of a picture, and what a decision does. opening.py makes
a session of what the user names, pictures.py lists the pictures and orders them by a queue,
decisions.py keeps the corrections file, files.py reads picture files, predictions.py asks the
model. page/ shows a session in a browser, widget.py in a notebook.
"""
