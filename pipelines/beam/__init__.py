"""Running a Beam pipeline anywhere. The only package that imports Beam, but for the graph.py of vocab and of prepare."""
