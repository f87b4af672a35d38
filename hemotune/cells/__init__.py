"""Drawn cells: the sample data set, and the training set that backbones are pre-trained on."""
