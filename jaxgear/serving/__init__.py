"""`jaxgear serve`: a local page that classifies pictures.

app.py is where to start: routes and limits. answer.py is what is said of a picture.
"""
