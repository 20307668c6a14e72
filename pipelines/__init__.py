"""A corpus in, a dataset out. The sub-packages are in the order of the data flow; each imports only earlier ones."""
