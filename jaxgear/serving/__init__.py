"""A local page that classifies pictures: the answer (answer.py), the server (app.py), the page."""
