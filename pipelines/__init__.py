"""A corpus in, a dataset out. The sub-packages follow the data's way; each imports only earlier ones."""
