"""Before a run: `clozemill preflight`, and the training part of `clozemill plan`. After pretraining."""
