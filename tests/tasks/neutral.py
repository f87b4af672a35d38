"""What a study of images that are not blood must not say."""

import re

FOREIGN = re.compile(
    r"blood|\bcells?\b|smear|kaggle|photograph|stain|diagnos|\boriginal\b|notebook|drawn|\(sample"
    r"|(?-i:\bTRAIN\b|\bTEST\b|TEST_SIMPLE)",
    re.IGNORECASE,
)


def foreign(text):
    """Return what a text says that is about the study of blood cells, or presumes an original."""
    return FOREIGN.findall(text)
