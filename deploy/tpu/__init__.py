"""The life of a TPU VM, from creation to deletion, and what runs on it."""
