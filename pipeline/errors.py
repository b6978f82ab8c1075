"""The one error a user is meant to read."""

import errno
import os

# What a user can mend: the disk is full, a quota used up, the folder is read-only or somebody else's, the disk broken,
# a folder where a file should be or the other way round, a name too long.
_OF_THE_DISK = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO}
_OF_THE_DISK |= {errno.EISDIR, errno.ENOTDIR, errno.ENAMETOOLONG}


class UserError(Exception):
    """Bad input: the message is one sentence that says what, where and what was expected.

    The command line prints it without a traceback and exits with status 1.
    """


def disk_error(error: OSError, path: str | os.PathLike | None = None) -> UserError | None:
    """`error` in one sentence if it is about the disk or the rights to it, None if it is something else.

    `path` is named if it is given, otherwise the file that `error` knows of.
    """
    if error.errno not in _OF_THE_DISK:
        return None
    where = path or error.filename
    reason = os.strerror(error.errno)
    return UserError(f"{where}: {reason}" if where else reason)
