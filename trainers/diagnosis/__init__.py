"""What a run has recorded, read without TensorFlow, and what is wrong with it: `doctor.main`. May import common only."""
