"""Pretrained ResNets: a weights file of PyTorch, Keras or jaxgear in, a `Backbone` out.

backbone.py is where to start. resnet.py is the network; convert.py and tables.py rename weights;
weights_files.py and torch_zip.py read files; download.py and npm.py fetch them.
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
