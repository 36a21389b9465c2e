"""posix.py FOLDER: who owns POSIX and OFD locks, what F_GETLK says, and that ranges are refused."""

import errno
import fcntl
import os
import struct
import sys

FLOCK = "hhqqi4x"
F_OFD_GETLK, F_OFD_SETLK = 36, 37


def packed(kind, start=0, length=0):
    return struct.pack(FLOCK, kind, os.SEEK_SET, start, length, 0)


def lock_in_the_way(fd, kind, command=fcntl.F_GETLK):
    """F_GETLK's answer: None, or (kind, pid)."""
    answer = struct.unpack(FLOCK, fcntl.fcntl(fd, command, packed(kind)))
    return None if answer[0] == fcntl.F_UNLCK else (answer[0], answer[4])


# Python's word for EOPNOTSUPP is ENOTSUP, its other name.
def error_of(call, *arguments):
    try:
        call(*arguments)
    except OSError as error:
        return errno.errorcode[error.errno]
    return None


def is_(got, wanted, what):
    if got != wanted:
        sys.exit(f"FAIL: {what}: {got!r}, not {wanted!r}")
    print("ok:", what)


def in_child(body):
    """What body() returns in a forked process."""
    read_end, write_end = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.write(write_end, repr(body()).encode())
        finally:
            os._exit(0)
    os.close(write_end)
    with open(read_end, "rb") as pipe:
        text = pipe.read()
    os.waitpid(pid, 0)
    return eval(text)


def take(path, flags=os.O_RDWR | os.O_CREAT):
    return os.open(path, flags)


folder = sys.argv[1]
a = os.path.join(folder, "posix-a")
me = os.getpid()

fd = take(a)
fcntl.lockf(fd, fcntl.LOCK_EX)
is_(in_child(lambda: lock_in_the_way(take(a), fcntl.F_RDLCK)), (fcntl.F_WRLCK, me),
    "F_GETLK names the holder")
is_(in_child(lambda: lock_in_the_way(fd, fcntl.F_RDLCK)), (fcntl.F_WRLCK, me),
    "a forked child is somebody else, on the same descriptor too")
is_(lock_in_the_way(fd, fcntl.F_WRLCK), None, "one's own lock is not in the way")
is_(in_child(lambda: error_of(fcntl.lockf, fd, fcntl.LOCK_EX | fcntl.LOCK_NB)), "EAGAIN",
    "a child does not inherit it")
other = take(a)
is_(error_of(fcntl.lockf, other, fcntl.LOCK_EX | fcntl.LOCK_NB), None,
    "another descriptor of the process holds it already")
os.close(other)
is_(os.path.exists(a), False, "any close by the process drops it")
fcntl.lockf(fd, fcntl.LOCK_SH)
is_(in_child(lambda: lock_in_the_way(take(a), fcntl.F_RDLCK)), None, "shared beside shared")
is_(in_child(lambda: lock_in_the_way(take(a), fcntl.F_WRLCK)), (fcntl.F_RDLCK, me),
    "a shared lock is in a writer's way")
fcntl.lockf(fd, fcntl.LOCK_EX)
is_(in_child(lambda: lock_in_the_way(take(a), fcntl.F_RDLCK)), (fcntl.F_WRLCK, me), "converted")
in_child(lambda: os.close(fd))
is_(os.path.exists(a), True, "a close by a child drops nothing of ours")
os.close(fd)

b = os.path.join(folder, "posix-b")
fd = take(b)
for start, length, what in ((0, 1, "one byte"), (10, 0, "from 10 on"), (0, 1 << 40, "a terabyte")):
    is_(error_of(fcntl.fcntl, fd, fcntl.F_SETLK, packed(fcntl.F_WRLCK, start, length)),
        "ENOTSUP", f"a range is refused: {what}")
    is_(error_of(fcntl.fcntl, fd, F_OFD_SETLK, packed(fcntl.F_WRLCK, start, length)),
        "ENOTSUP", f"for OFD too: {what}")
is_(os.path.exists(b), False, "and nothing was taken")
os.close(fd)

c = os.path.join(folder, "posix-c")
fd = take(c)
fcntl.fcntl(fd, F_OFD_SETLK, packed(fcntl.F_WRLCK))
other = take(c)
is_(error_of(fcntl.fcntl, other, F_OFD_SETLK, packed(fcntl.F_RDLCK)), "EAGAIN",
    "OFD locks of two descriptors exclude each other within a process")
is_(lock_in_the_way(other, fcntl.F_RDLCK, F_OFD_GETLK)[0], fcntl.F_WRLCK, "F_OFD_GETLK sees it")
is_(error_of(fcntl.lockf, other, fcntl.LOCK_EX | fcntl.LOCK_NB), "EAGAIN",
    "so do OFD and POSIX locks")
is_(error_of(fcntl.flock, other, fcntl.LOCK_EX | fcntl.LOCK_NB), "EAGAIN", "and flock")
os.close(other)
is_(os.path.exists(c), True, "a close of another descriptor drops no OFD lock")
is_(in_child(lambda: error_of(fcntl.fcntl, fd, F_OFD_SETLK, packed(fcntl.F_WRLCK))), None,
    "a child shares it")
is_(os.path.exists(c), True, "and its end leaves it")
copy = os.dup(fd)
os.close(fd)
is_(os.path.exists(c), True, "a duplicate keeps it")
os.close(copy)
is_(os.path.exists(c), False, "the last close frees it")
read_only = error_of(os.open, c, os.O_RDONLY)
is_(read_only, "ENOENT", "a free name cannot be opened without O_CREAT")
