"""`clozemill vocab`: count words, learn a vocabulary. After beam."""
