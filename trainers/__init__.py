"""A dataset in; a trained, fine-tuned, exported model out. Never loads Beam."""
