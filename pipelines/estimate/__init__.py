"""The data part of `clozemill plan`: run the stages of prepare on a sample. May import prepare."""
