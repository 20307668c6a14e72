"""Run a Beam pipeline. The only package that imports Beam, except graph.py in vocab and prepare."""
