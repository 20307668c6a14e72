"""Arrays <-> TFRecord bytes. After examples; dataset comes next."""
