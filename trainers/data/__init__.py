"""Turns a dataset, or rows in memory, into batches. Imports common; training imports it."""
