"""A client of exclusion.sh: every way in which Python locks a file."""

import errno
import fcntl
import os
import struct
import sys

# struct flock: l_type, l_whence, l_start, l_len, l_pid. The whole file; pid 0 as OFD locks want it.
FLOCK = "hhqqi4x"
F_OFD_GETLK, F_OFD_SETLK, F_OFD_SETLKW = 36, 37, 38


def whole(kind):
    return struct.pack(FLOCK, kind, os.SEEK_SET, 0, 0, 0)


def unlock_nothing(_file):
    pass


def by_flock(operation):
    return lambda f: fcntl.flock(f, operation), lambda f: fcntl.flock(f, fcntl.LOCK_UN)


def by_lockf(operation):
    return lambda f: fcntl.lockf(f, operation), lambda f: fcntl.lockf(f, fcntl.LOCK_UN)


def by_ofd(command, kind):
    return (
        lambda f: fcntl.fcntl(f, command, whole(kind)),
        lambda f: fcntl.fcntl(f, F_OFD_SETLK, whole(fcntl.F_UNLCK)),
    )


def by_mode(words):
    return lambda f: os.write(f.fileno(), words), lambda f: os.write(f.fileno(), b"UN")


METHODS = {
    "flock": by_flock(fcntl.LOCK_EX),
    "flock-shared": by_flock(fcntl.LOCK_SH),
    "flock-nb": by_flock(fcntl.LOCK_EX | fcntl.LOCK_NB),
    "lockf": by_lockf(fcntl.LOCK_EX),
    "lockf-shared": by_lockf(fcntl.LOCK_SH),
    "lockf-nb": by_lockf(fcntl.LOCK_EX | fcntl.LOCK_NB),
    "ofd": by_ofd(F_OFD_SETLKW, fcntl.F_WRLCK),
    "ofd-shared": by_ofd(F_OFD_SETLKW, fcntl.F_RDLCK),
    "ofd-nb": by_ofd(F_OFD_SETLK, fcntl.F_WRLCK),
    "mode": by_mode(b"EX"),
    "mode-try": by_mode(b"PW try"),
}


def acquire(method, path):
    """The open file and how to let go of it."""
    if method == "excl":
        return open(path, "x"), None
    take, release = METHODS[method]
    file = open(os.open(path, os.O_RDWR | os.O_CREAT), "r+b", buffering=0)
    take(file)
    return file, release


def main():
    try:
        file, release = acquire(sys.argv[1], sys.argv[2])
    except FileExistsError:
        return print("busy")
    except BlockingIOError:
        return print("busy")
    except OSError as error:
        return print("error", errno.errorcode[error.errno])
    print("held", flush=True)
    sys.stdin.readline()
    if release:
        release(file)
    else:
        file.close()
    print("released", flush=True)
    sys.stdin.read()


main()
