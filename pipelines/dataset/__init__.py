"""The files of a dataset folder and their schema. May import shards; the trainer reads datasets through this package."""
