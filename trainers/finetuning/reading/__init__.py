"""Reads tables, tagged sentences and questions into rows with their position in the file. Imported by tasks."""
