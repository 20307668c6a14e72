"""`clozemill submit`, `plan` and `demo`: where things run and what that costs. May import everything."""
