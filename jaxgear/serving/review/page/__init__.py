"""The page of `jaxgear review`.

app.py is where to start: routes. requests.py checks what a client sends. page.html loads page.js,
which asks the server, and the other scripts: decide.js sends decisions, tiles.js is the grid,
panel.js what stands beside it, move.js and keys.js what a person does.
"""
