"""Local and remote files: opened safely, written atomically, locked. After common; the trainer uses some of it, too."""
