"""Use of a trained model: what is known of it, and its answers for new images."""
