"""Images and manifests for GKE, and the TPU server that runs in its pods."""
