"""Networks: images [B, S, S, 3] in, logits [B, K] out. No optimizer is imported here.

convnet.py is where to start: the layers for experiments. finetune.py puts a head on a ResNet of
pretrained/; features.py caches features of a frozen backbone; cpu/ has CPU kernels.
"""
