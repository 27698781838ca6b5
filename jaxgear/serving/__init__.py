"""`jaxgear serve`: a local page that classifies pictures. `jaxgear review` is the wing review/.

app.py is where to start: routes and limits. answer.py classifies a picture. guard.py is for every
page: what it refuses, and its files.
"""
