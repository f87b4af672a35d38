"""Stage backbone: python -m tasks.backbone."""
