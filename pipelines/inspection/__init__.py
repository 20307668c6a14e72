"""`clozemill inspect`: records of a dataset in words. After data_card."""
