"""Local and remote files: open safely, write atomically, lock. May import common; the trainer uses some of it, too."""
