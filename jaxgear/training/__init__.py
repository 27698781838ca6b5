"""The training loop: a state and batches in, a state and a history row per epoch out.

steps.py is where to start: pure steps on the state of state.py. compiled.py compiles them and
loop.py repeats them; optim.py has optimizers and rates; runs/ keeps a run folder; vectorized/
trains several runs as one program.
"""
