"""The encoder, its heads and its losses, in keras.ops. Imports nothing of ours."""
