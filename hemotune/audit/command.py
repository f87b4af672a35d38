"""The command `hemotune audit`."""

import contextlib
import errno
import os
import sys
import tempfile
from pathlib import Path

from hemotune.audit.audit import examine
from hemotune.audit.page import write_page
from hemotune.audit.text import lines_of
from hemotune.errors import StudyError
from hemotune.files import new_file
from hemotune.local_source import opened
from hemotune.settings.dataset import Dataset
from hemotune.settings.reading import read

LEAK, BAD_INPUT = 1, 2


def audit(path: Path, page: Path | None = None, profile: Path | None = None) -> int:
    """Audit the images at `path`, print what is found and write the page.

    Args:
        profile: a file whose `dataset` says what the folders mean; by default their names tell.

    Progress goes to standard error: the first line of the output is the verdict.

    Returns:
        The exit status: 1 if the source's own test set has copies of training images, 2 for bad
        input and a full disk, else 0.
    """
    try:
        if page:
            require_writable(page)
        selection = read(profile, "dataset", Dataset) if profile else None
        with contextlib.ExitStack() as opening:
            with contextlib.redirect_stdout(sys.stderr):
                source = opening.enter_context(opened(path, selection))
                found = examine(path, source, source.images.with_name("images.npy"))
            if page:
                with new_file(page) as output:
                    write_page(output, found)
            for line in lines_of(found):
                print(line)
    except StudyError as error:
        print(f"error: {error}", file=sys.stderr, flush=True)
        return BAD_INPUT
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        print(
            f"error: {tempfile.gettempdir()}: the disk is full; free some space, or set TMPDIR to a"
            " folder on another disk",
            file=sys.stderr,
            flush=True,
        )
        return BAD_INPUT
    return LEAK if found.leaks else 0


def require_writable(page: Path) -> None:
    """Check, before minutes of work, that the page can be written.

    Raises:
        StudyError: it cannot.
    """
    if page.is_dir():
        raise StudyError(f"{page}: is a folder; name a file, such as {page / 'audit.html'}")
    if not page.parent.is_dir():
        raise StudyError(f"{page}: there is no folder {page.parent}; make it, or correct the path")
    if not os.access(page.parent, os.W_OK):
        raise StudyError(f"{page}: {page.parent} cannot be written; name a file elsewhere")
