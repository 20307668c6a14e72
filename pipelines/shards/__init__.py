"""Convert arrays to TFRecord bytes and back. May import examples; dataset comes next."""
