"""`jaxgear prepare`: a folder in, a TensorFlow Datasets set out, which grows with the folder.

prepared.py is where to start. staging.py decodes on all cores, with one workshop.py per process.
versions.py writes the shards with gear_builder.py. Nothing is imported here, so that worker
processes start fast.
"""
