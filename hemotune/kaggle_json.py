"""Where Kaggle's client looks for the user name and key of a user."""

import os
from pathlib import Path


def kaggle_json() -> Path:
    """Return the path of kaggle.json, which need not exist: in KAGGLE_CONFIG_DIR, ~/.kaggle or
    ~/.config/kaggle.
    """
    home = Path("~/.kaggle").expanduser()
    other = Path(os.environ.get("XDG_CONFIG_HOME") or "~/.config").expanduser() / "kaggle"
    folder = os.environ.get("KAGGLE_CONFIG_DIR") or (home if home.exists() else other)
    return Path(folder) / "kaggle.json"
