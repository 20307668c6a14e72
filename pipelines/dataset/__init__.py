"""The files of a dataset folder and their schema. After shards; the trainer reads datasets through this package."""
