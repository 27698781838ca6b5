"""The training loop: a state and batches in, a state and a row of the history for each epoch out.

steps.py is where to start: pure steps. loop.py compiles and repeats them; optim.py has optimizers
and rates; runs/ keeps a run folder.
"""
