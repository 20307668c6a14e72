"""Filters that drop documents. May import text."""
