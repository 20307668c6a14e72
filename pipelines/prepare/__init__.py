"""`clozemill prepare`: its stages, their Beam graph, resuming and updating. May import beam."""
