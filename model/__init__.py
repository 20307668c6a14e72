"""The encoder, its heads and its losses, in keras.ops."""
