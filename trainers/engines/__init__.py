"""Training and inference steps on TensorFlow or JAX: update rules, the state of a run, and the engines that run them."""
