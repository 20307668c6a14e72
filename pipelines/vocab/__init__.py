"""`clozemill vocab`: count words, learn a vocabulary. May import beam."""
