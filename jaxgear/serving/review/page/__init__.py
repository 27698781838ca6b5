"""The page of `jaxgear review`.

app.py is where to start: routes. requests.py checks what a client sends. page.js is the page.
"""
