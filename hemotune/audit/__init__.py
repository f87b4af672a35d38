"""The command `hemotune audit`: what a set of images can measure, found without any training."""
