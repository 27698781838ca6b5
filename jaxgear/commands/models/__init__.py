"""Commands that use a trained model: a run or bundle and pictures in, figures and tables out.

predict.py is where to start.
"""
