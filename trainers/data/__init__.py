"""A dataset, or rows in memory -> batches. After common; training comes next."""
