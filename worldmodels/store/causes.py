"""Explanations of operating-system errors, each with a command that shows more."""

import errno
import shlex

CAUSES: dict[int, tuple[str, str]] = {
    errno.ENOSPC: ("the disk is full", "df -h {place}"),
    errno.EDQUOT: ("the disk quota is used up", "quota -s"),
    errno.EACCES: ("permission denied", "ls -ld {place}"),
    errno.EPERM: ("permission denied", "ls -ld {place}"),
    errno.EROFS: ("the file system is read-only", "findmnt -T {place}"),
    errno.ENOTDIR: ("a file is where a folder should be", "ls -ld {place}"),
    errno.EIO: ("the device fails", "dmesg | tail"),
    errno.ESTALE: ("the network file system lost it", "findmnt -T {place}"),
    errno.EMFILE: ("this process has too many open files", "ulimit -n"),
    errno.ENFILE: ("this machine has too many open files", "sysctl fs.file-nr"),
    errno.ENOMEM: ("there is no memory left", "free -h"),
    errno.EAGAIN: ("there are too many processes", "ulimit -u"),
}
NOT_OFFERED = (errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOSYS, errno.ENOLCK, errno.EINVAL)
"""Error numbers of file systems that lack an operation: locks, hard links, fsync of folders."""


def explain(error: OSError, place: str) -> tuple[str, str]:
    """Return why an operation at the path `place` failed, and a command that shows more."""
    reason, command = CAUSES.get(error.errno or 0, (error.strerror or str(error), "ls -ld {place}"))
    return reason, command.format(place=shlex.quote(place))
