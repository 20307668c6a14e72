"""Which documents are left out, and why. After text."""
