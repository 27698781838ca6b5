"""Networks: images [B, S, S, 3] in, logits [B, K] out. No optimizer is imported here.

convnet.py is where to start: the layers that experiments put together. finetune.py puts a head on
the ResNet of pretrained/; features.py keeps the features of a frozen one; cpu/ has CPU kernels.
"""
