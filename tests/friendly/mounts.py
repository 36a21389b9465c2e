# SPDX-License-Identifier: MIT
"""For the tests here: lockfs run and mounted, and processes that hold its locks."""

import atexit
import ctypes
import errno
import os
import signal
import subprocess
import sys
import tempfile
import time

LOCKFS = os.path.abspath(os.environ["LOCKFS_BINARY"])
LIMIT = 20.0  # Seconds that a condition is waited for; none should need one.
PR_SET_NAME, PR_SET_PDEATHSIG = 15, 1
# Two words for one number: those of the manual pages.
NAMES = {errno.EOPNOTSUPP: "EOPNOTSUPP", errno.EDEADLK: "EDEADLK"}
libc = ctypes.CDLL(None, use_errno=True)


def wait_until(condition, what):
    end = time.monotonic() + LIMIT
    while not condition():
        if time.monotonic() > end:
            sys.exit(f"FAIL: {what}: not within {LIMIT} s")
        time.sleep(0.001)


def call_me(name):
    """Our process shows as NAME in pictures."""
    libc.prctl(PR_SET_NAME, name.encode(), 0, 0, 0)


def error_of(call, *arguments):
    """The name of the error that a call fails with; "0" when it does not fail."""
    try:
        call(*arguments)
    except OSError as error:
        return NAMES.get(error.errno) or errno.errorcode[error.errno]
    return "0"


ends = []  # Whatever is to be ended, the newest first.


@atexit.register
def end_all():
    while ends:
        ends.pop().end()


class Mount:
    """A mount of its own, served by a process of its own."""

    def __init__(self, *arguments, source="memory:"):
        self.path = tempfile.mkdtemp(prefix="lockfs-test-")
        os.chmod(self.path, 0o755)
        self.log_path = self.path + ".log"
        with open(self.log_path, "w") as log:
            self.daemon = subprocess.Popen([LOCKFS, "-f", *arguments, source, self.path],
                                           stderr=log, stdin=subprocess.DEVNULL)
        ends.append(self)
        wait_until(lambda: os.path.exists(self.path + "/.lockfs/version")
                   or self.daemon.poll() is not None, "a mount")
        if self.daemon.poll() is not None:
            sys.exit(f"FAIL: no mount: {self.log()}")

    def log(self):
        with open(self.log_path) as log:
            return log.read()

    def lock(self, name):
        return f"{self.path}/{name if '/' in name else 'default/' + name}"

    def open(self, name, flags=os.O_RDWR | os.O_CREAT):
        return os.open(self.lock(name), flags)

    def control(self, command, lockspace="default"):
        """The errno of a command to .ctl, and its answer."""
        fd = os.open(f"{self.path}/{lockspace}/.ctl", os.O_RDWR)
        try:
            error = error_of(os.write, fd, command.encode())
            return error, os.pread(fd, 65536, 0).decode().rstrip("\n")
        finally:
            os.close(fd)

    def end(self):
        if self in ends:
            ends.remove(self)
        subprocess.run(["umount", "-l", self.path], stderr=subprocess.DEVNULL)
        self.daemon.kill()
        self.daemon.wait()
        os.rmdir(self.path)
        os.remove(self.log_path)


def value(fd, key):
    """A key of the picture that is read through FD, at whatever depth; "" if it is not there."""
    for line in os.pread(fd, 1 << 20, 0).decode().splitlines():
        name, _, text = line.strip().partition(": ")
        if name == key:
            return text
    return ""


class Child:
    """A process called NAME that runs body(say), and stays until it is ended; dies with us."""

    def __init__(self, name, body, uid=0):
        read_end, write_end = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            status = 1
            try:
                os.close(read_end)
                ends.clear()
                if uid != 0:
                    os.setgroups([])
                    os.setgid(uid)
                    os.setuid(uid)
                libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
                call_me(name)
                body(lambda word: os.write(write_end, f"{word}\n".encode()))
                while True:
                    signal.pause()
            except BaseException as error:
                # At its end, its mount may be gone before it.
                if getattr(error, "errno", None) not in (errno.ECONNABORTED, errno.ENOTCONN):
                    os.write(2, f"{name}: {error!r}\n".encode())
            finally:
                os._exit(status)
        os.close(write_end)
        self.words = open(read_end)
        ends.append(self)

    def hears(self):
        return self.words.readline().rstrip("\n")

    def end(self):
        if self in ends:
            ends.remove(self)
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)
        self.words.close()


def holder(mount, name, command="EX", comm="nightly", uid=0):
    """A process that holds a lock by a mode string until it is ended."""

    def body(say):
        fd = mount.open(name)
        os.write(fd, command.encode())
        say("held")

    child = Child(comm, body, uid)
    if child.hears() != "held":
        sys.exit(f"FAIL: {comm} does not hold {name}")
    return child
