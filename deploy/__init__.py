"""`clozemill submit`, `plan` and `demo`: run on clusters and clouds, and estimate the cost. May import every package."""
