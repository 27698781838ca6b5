"""`jaxgear serve`: a local page that classifies pictures.

app.py is where to start: routes and limits. answer.py classifies a picture.
"""
