"""A command as a program: its options, its signals, its exit codes. After files; the trainer uses it, too."""
