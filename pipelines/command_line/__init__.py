"""Options, signals and exit codes of a command. May import files; the trainer uses it, too."""
