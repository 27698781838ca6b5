"""Boxes of whole photographs that may hold gear: a photograph in, boxes with scores out.

cropping.py is where to start: it classifies the crops of photographs. propose.py proposes boxes;
evidence.py says how much each place looks like each class; boxes.py measures overlap.
"""
