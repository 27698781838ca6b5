"""The training loop: a state and batches in, a state and a history row per epoch out.

steps.py is where to start: pure steps on the state of state.py. loop.py compiles and repeats them;
optim.py has optimizers and rates; environment.py records versions and devices; runs/ keeps a run
folder.
"""
