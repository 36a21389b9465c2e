"""The daemon is killed: every call says ENOTCONN, those that wait are told, and nothing ever locks
locally. The last test of a mount: with-mount clears up what is left of it."""

import errno
import fcntl
import os
import signal
import subprocess

from world import (F_OFD_SETLK, MOUNT, WAYS, Child, by_flock, by_mode, by_ofd, by_posix, check,
                   errno_of, open_lock, path, take, wait_until, waiters, whole)

DAEMON = int(os.environ["LOCKFS_PID"])


def waiting(name, way):
    def body(say):
        fd = open_lock(name)
        say("open")
        say(errno_of(WAYS[way], fd))

    child = Child(body)
    child.hears()
    return child


held = take("held", "write")
flocked = take("flocked", "flock")
free = open_lock("free")
crowd = {way: waiting("held", way) for way in WAYS}
wait_until(lambda: waiters("held") == len(WAYS), "all wait")

os.kill(DAEMON, signal.SIGKILL)
for way, child in crowd.items():
    word = child.hears()
    check(word in ("ECONNABORTED", "ENOTCONN"), f"{way}: who waited is told: {word}")
    child.wait()


def refused(what, call, *arguments):
    got = errno_of(call, *arguments)
    check(got == "ENOTCONN", f"{what}: {got}")


for name, fd in (("free", free), ("held", held), ("flocked", flocked)):
    refused(f"flock of a descriptor of {name}", by_flock, fd)
    refused("  without waiting", fcntl.flock, fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    refused("  fcntl", by_posix, fd)
    refused("  OFD", by_ofd, fd)
    refused("  OFD without waiting", fcntl.fcntl, fd, F_OFD_SETLK, whole(fcntl.F_RDLCK))
    refused("  F_GETLK", fcntl.fcntl, fd, fcntl.F_GETLK, whole(fcntl.F_WRLCK))
    refused("  a mode string", by_mode, fd)
    refused("  a read", os.read, fd, 100)
refused("O_EXCL", os.open, path("new"), os.O_WRONLY | os.O_CREAT | os.O_EXCL)
refused("O_CREAT", os.open, path("new"), os.O_RDWR | os.O_CREAT)
refused("open", os.open, path("held"), os.O_RDONLY)
refused("stat", os.stat, path("held"))
refused("ls", os.listdir, MOUNT)
for arguments in (["-n"], ["-s", "-n"], ["-w", "1"], []):
    done = subprocess.run(["flock", *arguments, path("new"), "echo", "locked"],
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    check(done.returncode != 0 and done.stdout == "", f"flock(1) {arguments} does not run it")
    check(os.strerror(errno.ENOTCONN) in done.stderr, f"  and says why: {done.stderr.strip()}")
with open("/proc/locks") as file:
    mine = [line for line in file if f" {os.getpid()} " in line]
check(mine == [], "the kernel keeps no lock of ours")
for fd in (held, flocked, free):
    refused("close says it too", os.close, fd)
