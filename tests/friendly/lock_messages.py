# SPDX-License-Identifier: MIT
"""What a lock says when it refuses: mode strings, waits, losses, limits, backends that cannot."""

import fcntl
import os
import shutil
import signal
import struct
import threading
import uuid

from mounts import (PR_SET_PDEATHSIG, Child, Mount, ends, error_of, holder, libc, value,
                    wait_until)
from section import Section, known

MISSPELLED = [
    "\n", "EXX", "try EX", "EX\nPR\n", "EX\r\n", "EX note=\"open", "EX bogus=1", "EX try try",
    "EX try=1", "EX timeout", "EX timeout=5", "EX timeout=99999h", "EX try timeout=1s", "EX ttl=0s",
    "EX size=3", "SLOT", "SLOT size=0", "EX onlost=LOUD", "EX linger=soon", "renew=soon",
    "renew 5s", "UN now", "resume", "resume a b",
]


def shown(command):
    for raw, text in (("\n", "\\n"), ("\r", "\\r")):
        command = command.replace(raw, text)
    return command if len(command) < 50 else command[:20] + "..."


def write(section, fd, command, done=None):
    """A mode string that is refused, and what the descriptor says of it afterwards."""
    error = error_of(os.write, fd, command.encode())
    section.entry(done or shown(command), error, value(fd, "error").strip('"').replace('\\"', '"'))


def mode_strings():
    section = Section("Mode strings", "Written to a descriptor of `default/job`, which then says "
                      "why in `this.error` of its picture (`cat <&9`).")
    mount = Mount()
    fd = mount.open("job")
    for command in MISSPELLED + ["EX" + " " * 4095]:
        write(section, fd, command)
    write(section, fd, "renew")
    write(section, fd, "resume 0123456789abcdef")
    os.close(fd)
    mount.end()


def alarmed(*_):
    raise InterruptedError


def interrupted(section, mount, fd, command):
    """As write(); a signal comes while it waits."""
    us = os.getpid()

    def signaller(say):
        seen = mount.open("job", os.O_RDONLY)
        wait_until(lambda: value(seen, "waiters_total") == "1", "it waits")
        say("it waits")
        os.kill(us, signal.SIGALRM)

    before = signal.signal(signal.SIGALRM, alarmed)
    child = Child("signaller", signaller)
    try:
        os.write(fd, command.encode())
        error = "0"
    except InterruptedError:
        error = "EINTR"
    signal.signal(signal.SIGALRM, before)
    child.end()
    section.entry(f"{command}, and a signal while it waits", error, value(fd, "error").strip('"'))


def heir(section, mount):
    """Who took the lock is gone, and its child has the descriptor."""

    def opener(say):
        fd = mount.open("inherited")
        os.write(fd, b"EX")
        value(fd, "comm")  # So that it is known when it is gone.
        say(os.getpid())
        if os.fork() != 0:
            os._exit(0)
        libc.prctl(PR_SET_PDEATHSIG, 0, 0, 0, 0)
        say(os.getpid())

    child = Child("opener", opener)
    known(int(child.hears()))
    grandchild = int(child.hears())
    os.waitpid(child.pid, 0)
    fd = mount.open("inherited")
    write(section, fd, "EX try", "EX try, of a lock whose holder left it to a child")
    os.kill(grandchild, signal.SIGKILL)
    ends.remove(child)
    os.close(fd)


def held_by_another():
    section = Section("A lock that somebody holds",
                      "A process `nightly` holds `default/job` in EX.")
    mount = Mount()
    nightly = holder(mount, "job")
    known(nightly.pid)
    fd = mount.open("job")
    write(section, fd, "EX try")
    write(section, fd, "PR timeout=50ms")
    interrupted(section, mount, fd, "EX")
    section.entry("flock -n", error_of(fcntl.flock, fd, fcntl.LOCK_EX | fcntl.LOCK_NB),
                  value(fd, "error").strip('"'))
    section.entry("fcntl F_SETLK", error_of(fcntl.lockf, fd, fcntl.LOCK_EX | fcntl.LOCK_NB),
                  value(fd, "error").strip('"'))
    section.entry("open O_CREAT|O_EXCL (noclobber, mode x)",
                  error_of(mount.open, "job", os.O_WRONLY | os.O_CREAT | os.O_EXCL))
    section.entry("rm", error_of(os.remove, mount.lock("job")))
    for each in range(4):
        known(holder(mount, "many", "PR", f"reader{each}").pid)
    many = mount.open("many")
    write(section, many, "EX try", "EX try, of a lock that four hold in PR")
    writer = Child("writer", lambda say: os.write(mount.open("many"), b"EX"))
    wait_until(lambda: value(many, "waiters_total") == "1", "waiters_total")
    write(section, many, "PR try", "PR try, of that lock, while one waits for EX")
    writer.end()
    left = mount.open("left")
    os.write(left, b"EX linger=1h")
    os.close(left)
    left = mount.open("left")
    write(section, left, "EX try", "EX try, of a lock that lingers")
    heir(section, mount)
    known(holder(mount, "slots", "SLOT size=1").pid)
    slots = mount.open("slots")
    write(section, slots, "SLOT size=1 try", "SLOT size=1 try, and the one slot is taken")
    write(section, slots, "SLOT size=2 try", "SLOT size=2 try, of that lock")
    for each in (fd, many, left, slots):
        os.close(each)
    mount.end()


def deadlocks():
    section = Section("Deadlocks", "`other` holds `default/b` and waits for `default/a`, which we "
                      "hold.")
    mount = Mount()
    a = mount.open("a")
    os.write(a, b"EX")

    def crossed(say):
        b = mount.open("b")
        os.write(b, b"EX")
        say("held")
        os.write(mount.open("a"), b"EX")

    other = Child("other", crossed)
    other.hears()
    known(other.pid)
    waiting = mount.open("a")  # A second descriptor shows who waits without a lock of its own.
    wait_until(lambda: value(waiting, "waiters_total") == "1", "waiters_total")
    b = mount.open("b")
    write(section, b, "EX", "EX of b")

    def converted(say):
        c = mount.open("c")
        os.write(c, b"PR")
        say("held")
        os.write(c, b"EX")

    c = mount.open("c")
    os.write(c, b"PR")
    upgrader = Child("upgrader", converted)
    upgrader.hears()
    known(upgrader.pid)
    wait_until(lambda: value(c, "waiters_total") == "1", "waiters_total")
    write(section, c, "EX", "EX of c: we hold PR, another holds PR and waits for EX")
    for each in (a, b, c, waiting):
        os.close(each)
    mount.end()


def lost():
    section = Section("A lock that was lost", "Every further use of the descriptor says ESTALE, "
                      "until `UN` or its close; poll(2) says POLLERR and POLLHUP.")
    mount = Mount()
    fd = mount.open("job")
    os.write(fd, b"EX")
    mount.control("break job it hangs since noon")
    write(section, fd, "EX", "EX, after .ctl's `break job it hangs since noon`")
    write(section, fd, "renew", "renew, after it")
    section.entry("flock, after it", error_of(fcntl.flock, fd, fcntl.LOCK_EX),
                  value(fd, "error").strip('"'))
    os.write(fd, b"UN")
    os.write(fd, b"EX ttl=50ms")
    wait_until(lambda: value(fd, "mode") != "EX", "mode")
    write(section, fd, "EX", "EX, after a ttl=50ms that nobody renewed")
    os.write(fd, b"UN")
    os.mkdir(mount.path + "/jobs")
    gone = mount.open("jobs/job")
    os.write(gone, b"EX")
    mount.control("leave force", "jobs")
    section.entry("EX, after `leave force` in .ctl", error_of(os.write, gone, b"EX"),
                  value(gone, "error").strip('"'))
    for each in (fd, gone):
        os.close(each)
    mount.end()


def permissions():
    section = Section("Another user", "uid 1000 asks; the lockspace `private` is root's, 0755, "
                      "and root's lock in `default` lingers.")
    mount = Mount()
    os.mkdir(mount.path + "/private", 0o755)
    mount.control("pin job", "private")
    fd = mount.open("job")
    os.write(fd, b"EX linger=1h")
    key = value(fd, "key").strip('"')
    os.close(fd)

    def stranger(say):
        fd = os.open(mount.lock("private/job"), os.O_RDONLY)
        say(error_of(fcntl.flock, fd, fcntl.LOCK_EX | fcntl.LOCK_NB))
        say(value(fd, "error"))
        fd = mount.open("job")
        say(error_of(os.write, fd, f"resume {key}".encode()))
        say(value(fd, "error"))
        say(error_of(mount.open, "private/new"))

    child = Child("stranger", stranger, uid=1000)
    said = [child.hears().strip('"') for _ in range(5)]
    section.entry("flock of private/job, opened for reading", said[0], said[1])
    section.entry("resume KEY of root's lingering lock", said[2], said[3])
    section.entry("open O_CREAT in private", said[4])
    child.end()
    mount.end()


def full(section):
    """64 locks are held in a segment that has room for as many."""
    name = "lockfs-friendly-" + uuid.uuid4().hex[:12]
    try:
        mount = Mount(source=f"shm:{name}?locks=64")
        held = [mount.open(str(each)) for each in range(65)]
        for each in held[:-1]:
            os.write(each, b"EX")
        write(section, held[-1], "EX", "EX of a 65th name, on a mount of shm:NAME?locks=64")
        for each in held:
            os.close(each)
        mount.end()
    finally:
        os.remove("/dev/shm/" + name)


def limits():
    section = Section("Limits", "A mount with `-o max_waiters_per_user=1,max_names_per_user=2,"
                      "max_opens_per_user=6,max_lockspaces=2`; uid 1000 asks, for root has no "
                      "limits.")
    mount = Mount("-o", "max_waiters_per_user=1,max_names_per_user=2,max_opens_per_user=6,"
                  "max_lockspaces=2,root_mode=0777")
    held = mount.open("held")
    os.write(held, b"EX")

    def hungry(say):
        waiting = mount.open("held")
        thread = threading.Thread(target=lambda: os.write(waiting, b"EX timeout=1h"), daemon=True)
        thread.start()
        wait_until(lambda: value(mount_reader, "waiters_total") == "1", "waiters_total")
        fd = mount.open("held")
        say(error_of(os.write, fd, b"EX"))
        say(value(fd, "error"))
        os.close(fd)
        names = [mount.open(str(each)) for each in range(2)]
        for each in names:
            os.write(each, b"EX")
        fd = mount.open("2")
        say(error_of(os.write, fd, b"EX"))
        say(value(fd, "error"))
        say(error_of(mount.open, "3", os.O_WRONLY | os.O_CREAT | os.O_EXCL))
        error, answer = mount.control("pin 3")
        say(error)
        say(answer)
        kept = [mount.open("held") for _ in range(2)]
        say(error_of(mount.open, "held"))
        os.mkdir(mount.path + "/one")
        say(error_of(os.mkdir, mount.path + "/two"))
        say(len(kept))

    mount_reader = mount.open("held", os.O_RDONLY)
    child = Child("hungry", hungry, uid=1000)
    known(child.pid)
    said = [child.hears().strip('"') for _ in range(9)]
    section.entry("EX of a held lock, the second wait", said[0], said[1])
    section.entry("EX of a third name", said[2], said[3])
    section.entry("open O_CREAT|O_EXCL of a third name", said[4])
    section.entry(".ctl: pin of a third name", said[5], said[6])
    section.entry("open, the seventh", said[7])
    section.entry("mkdir of a third lockspace", said[8])
    child.end()
    warnings = [line for line in mount.log().splitlines() if " warning: " in line]
    section.entry("and the log says", "", "\n".join(warnings))
    full(section)
    for each in (held, mount_reader):
        os.close(each)
    mount.end()


def byte_range(fd):
    fcntl.fcntl(fd, fcntl.F_SETLK, struct.pack("hhqqi4x", fcntl.F_WRLCK, os.SEEK_SET, 0, 10, 0))


def unsupported(scratch):
    section = Section("What a backend cannot do", "On a mount of `file:DIR`.")
    mount = Mount(source="file:" + scratch)
    fd = mount.open("job")
    write(section, fd, "SLOT size=3")
    section.entry("fcntl F_SETLK of ten bytes", error_of(byte_range, fd),
                  value(fd, "error").strip('"'))
    os.write(fd, b"EX")
    section.entry("setfattr -n user.lockfs.lvb",
                  error_of(os.setxattr, mount.lock("job"), "user.lockfs.lvb", b"x"))
    section.entry("mv", error_of(os.rename, mount.lock("job"), mount.lock("other")))
    section.entry("ln", error_of(os.link, mount.lock("job"), mount.lock("other")))
    os.close(fd)
    os.mkdir(scratch + "/default/directory")
    write(section, mount.open("directory"), "EX", "EX of a name that is a directory in DIR")
    shutil.rmtree(scratch + "/default")
    mount.end()


def out_of_reach(scratch):
    section = Section("A backend out of reach", "A mount of `memory:` whose lockspace `late` has "
                      "`file:` on a directory that is not there.")
    config = scratch + "/late.toml"
    with open(config, "w") as file:
        file.write(f'[lockspace.late]\nbackend = "file:{scratch}/none"\n')
    mount = Mount("--config", config)
    section.entry("open O_CREAT of late/job", error_of(mount.open, "late/job"))
    section.entry("open O_CREAT|O_EXCL of late/job",
                  error_of(mount.open, "late/job", os.O_WRONLY | os.O_CREAT | os.O_EXCL))
    error, answer = mount.control("allocate", "late")
    section.entry(".ctl: allocate", error, answer)
    error, answer = mount.control("pin job", "late")
    section.entry(".ctl: pin job", error, answer)
    wrong = [line for line in mount.log().splitlines() if " error: " in line]
    section.entry("and the log says", "", "\n".join(wrong))
    mount.end()
    os.mkdir(scratch + "/gone")
    mount = Mount(source=f"file:{scratch}/gone")
    fd = mount.open("job")
    os.rmdir(scratch + "/gone")
    write(section, fd, "EX", "EX, on a mount of file:DIR, without DIR")
    mount.end()


def sections(scratch):
    mode_strings()
    held_by_another()
    deadlocks()
    lost()
    permissions()
    limits()
    unsupported(scratch)
    out_of_reach(scratch)
