"""`clozemill inspect`: show records of a dataset as text. May import data_card."""
