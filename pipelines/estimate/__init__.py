"""The data part of `clozemill plan`: the stages of prepare on a sample. After prepare."""
