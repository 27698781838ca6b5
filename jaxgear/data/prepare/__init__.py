"""`jaxgear prepare`: a folder in, a TensorFlow Datasets set that grows with it out.

prepared.py is where to start. staging.py decodes on all cores, in a workshop.py for each process;
versions.py writes the shards, by gear_builder.py. Nothing is imported here: processes start soon.
"""
