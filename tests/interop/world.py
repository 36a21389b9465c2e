"""For the Python tests here: processes that hold, wait and die, and what the mount says of them."""

import atexit
import ctypes
import errno
import fcntl
import os
import re
import signal
import struct
import sys
import time
import traceback

MOUNT = os.environ["MNT"]
LIMIT = 20.0  # Seconds that a condition is waited for; none should need one.
FLOCK = "hhqqi4x"  # struct flock
F_OFD_SETLK, F_OFD_SETLKW = 37, 38
PR_SET_PDEATHSIG = 1
libc = ctypes.CDLL(None, use_errno=True)


def path(name):
    return f"{MOUNT}/default/{name}"


def check(condition, what):
    if not condition:
        sys.exit(f"FAIL: {what}")
    print("ok:", what, flush=True)


def eventually(condition, what):
    end = time.monotonic() + LIMIT
    while not condition():
        if time.monotonic() > end:
            sys.exit(f"FAIL: {what}: not within {LIMIT} s")
        time.sleep(0.001)
    print("ok:", what, flush=True)


def wait_until(condition, what):
    """As eventually(), without a word when it holds."""
    end = time.monotonic() + LIMIT
    while not condition():
        if time.monotonic() > end:
            sys.exit(f"FAIL: {what}: not within {LIMIT} s")
        time.sleep(0.0005)


def errno_of(call, *arguments):
    """The name of the error that a call fails with; None when it does not fail."""
    try:
        call(*arguments)
    except OSError as error:
        return errno.errorcode[error.errno]
    return None


def is_free(name):
    return not os.path.exists(path(name))


def value(name, key):
    """A top-level value of a lock's picture; None if the name is not there."""
    try:
        with open(path(name)) as file:
            found = re.search(rf"^{key}: (.*)$", file.read(), re.M)
    except FileNotFoundError:
        return None
    return found and found.group(1)


def waiters(name):
    return int(value(name, "waiters_total") or 0)


def state(pid):
    """The kernel's letter for what a process does: T is stopped."""
    with open(f"/proc/{pid}/stat") as file:
        return file.read().rpartition(")")[2].split()[0]


def open_lock(name):
    return os.open(path(name), os.O_RDWR | os.O_CREAT)


def whole(kind):
    return struct.pack(FLOCK, kind, os.SEEK_SET, 0, 0, 0)


def by_mode(fd):
    os.write(fd, b"EX")


def by_flock(fd):
    fcntl.flock(fd, fcntl.LOCK_EX)


def by_posix(fd):
    fcntl.lockf(fd, fcntl.LOCK_EX)


def by_ofd(fd):
    fcntl.fcntl(fd, F_OFD_SETLKW, whole(fcntl.F_WRLCK))


# Ways to wait for EX on a descriptor.
WAYS = {"flock": by_flock, "fcntl": by_posix, "OFD": by_ofd, "write": by_mode}


def take(name, way):
    """Takes the lock, waiting for it; the descriptor stays open until the process ends."""
    if way == "O_EXCL":
        while True:
            try:
                return os.open(path(name), os.O_WRONLY | os.O_CREAT | os.O_EXCL)
            except FileExistsError:
                time.sleep(0)
    fd = open_lock(name)
    WAYS[way](fd)
    return fd


def try_ex(name):
    """Whether EX can be had at once; it is let go again."""
    fd = open_lock(name)
    try:
        return errno_of(os.write, fd, b"EX try") is None
    finally:
        os.close(fd)


children = []


@atexit.register
def end_children():
    for child in children:
        child.end()


class Child:
    """A forked process that runs body(say); the parent hears what it says. Dies with the parent."""

    def __init__(self, body):
        read_end, write_end = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
            os.close(read_end)
            children.clear()
            status = 1
            try:
                body(lambda text: os.write(write_end, f"{text}\n".encode()))
                status = 0
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(status)
        os.close(write_end)
        self.words = open(read_end)
        self.alive = True
        children.append(self)

    def hears(self):
        return self.words.readline().rstrip("\n")

    def kill(self, number=signal.SIGKILL):
        os.kill(self.pid, number)

    def wait(self):
        os.waitpid(self.pid, 0)
        self.alive = False
        self.words.close()
        children.remove(self)

    def end(self):
        if self.alive:
            self.kill()
            self.wait()


def holder(name, way="write"):
    """A process that holds the lock until it is ended."""

    def body(say):
        fd = take(name, way)
        say("held")
        while fd >= 0:
            signal.pause()

    child = Child(body)
    if child.hears() != "held":
        sys.exit(f"FAIL: no holder by {way}")
    return child


def waiter(name, way="write"):
    """A process that waits for the lock, says when it got it (monotonic seconds), and holds it."""

    def body(say):
        fd = take(name, way)
        say(time.monotonic())
        while fd >= 0:
            signal.pause()

    before = waiters(name)
    child = Child(body)
    if way != "O_EXCL":
        wait_until(lambda: waiters(name) == before + 1, f"a waiter by {way} is in the queue")
    return child
