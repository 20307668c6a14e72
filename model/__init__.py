"""The encoder, its heads and its losses, in keras.ops. Imports no other package of clozemill."""
