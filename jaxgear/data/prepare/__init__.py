"""`jaxgear prepare`: a folder in, a TensorFlow Datasets set out, which grows with the folder.

prepared.py is where to start. The wing `decoding` stages the images. versions.py writes a version,
and writing.py its shards. Nothing is imported here, so that worker processes start fast.
"""
