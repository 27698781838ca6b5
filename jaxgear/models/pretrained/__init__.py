"""Pretrained ResNets: a weights file of PyTorch, Keras or jaxgear in, a `Backbone` out.

backbone.py is where to start. resnet.py is the network, with layers of CLIP in clip.py;
convert.py and tables.py rename weights; files/ reads them, and download.py fetches them.
"""

from jaxgear.models.pretrained.backbone import MODULE_FIELDS, Backbone, load_backbone
from jaxgear.models.pretrained.download import backbone_of, cached_weights
from jaxgear.models.pretrained.resnet import STAGES, Preprocess, ResNet, imagenet

__all__ = [
    "MODULE_FIELDS",
    "STAGES",
    "Backbone",
    "Preprocess",
    "ResNet",
    "backbone_of",
    "cached_weights",
    "imagenet",
    "load_backbone",
]
