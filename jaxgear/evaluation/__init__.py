"""Evaluates trained models: a run or a bundle in, metrics, figures and reports out.

metrics.py is where to start. plots/ draws, report/ makes the page, robustness/ damages images,
no_gear/ tells gear from everything else; comparison/ compares runs.
"""
