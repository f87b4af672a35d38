"""The command `hemotune init`: settings for a study of one's own images."""
