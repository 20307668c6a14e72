"""`clozemill export` and `import`. After training."""
