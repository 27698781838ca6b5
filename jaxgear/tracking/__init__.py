"""Shows a run in other tools: a run folder and its history in, TensorBoard, MLflow or yours out.

find.py is where to start: what a tracker is, and what `--track` names. tensorboard.py and mlflow.py
are two; figures.py and histograms.py have what they show.
"""

from jaxgear.tracking.find import Track, Trackers

__all__ = ["Track", "Trackers"]
