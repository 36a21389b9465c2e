# SPDX-License-Identifier: MIT
"""What .ctl answers when it refuses, and the names that cannot be."""

import os
import uuid

from mounts import Child, Mount, error_of, holder
from section import Section, known

WRONG = [
    "\n", "lock job", "stats now", "allocate 1 2", "allocate x", "allocate 9", "free x", "free 7",
    "free-all now", "pin", "pin a/b", "pin .ctl", "unpin job", "break job", "break", "capacity 0",
    "leave now", "leave", "pin \"job",
]


def ask(section, mount, command, lockspace="default", done=None):
    error, answer = mount.control(command, lockspace)
    section.entry(done or command.replace("\n", "\\n"), error, answer)


def commands():
    section = Section(".ctl", "Written to `.ctl` of `default`, `capacity` 3; its answer is read "
                      "from the same descriptor.")
    mount = Mount("-o", "capacity=3")
    for command in WRONG:
        ask(section, mount, command)
    ask(section, mount, "stats" + " " * 4092, done="stats" + " " * 12 + "...")
    for _ in range(3):
        mount.control("allocate")
    ask(section, mount, "allocate 1", done="allocate 1, which is taken")
    ask(section, mount, "allocate", done="allocate, when all are taken")
    os.mkdir(mount.path + "/jobs")
    mount.control("pin a", "jobs")
    ask(section, mount, "leave", "jobs", done="leave, of a lockspace in use")
    mount.end()


def of_others():
    section = Section(".ctl, by another user", "uid 1000 asks in `default`, which is root's.")
    mount = Mount()
    mount.control("pin a")
    mount.control("allocate")
    wanted = ["unpin a", "free 0", "break a", "capacity 9", "free-all", "leave"]

    def stranger(say):
        for command in wanted:
            for word in mount.control(command):
                say(word)
        say(error_of(os.remove, mount.lock("a")))

    child = Child("stranger", stranger, uid=1000)
    known(child.pid)
    for command in wanted:
        section.entry(command, child.hears(), child.hears())
    section.entry("rm default/a", child.hears())
    child.end()
    warnings = [line for line in mount.log().splitlines() if " warning: " in line]
    section.entry("and the log says", "", "\n".join(warnings))
    mount.end()


def names():
    section = Section("Names", "Here words have no way back: the errno is all.")
    mount = Mount()
    os.mkdir(mount.path + "/jobs")
    held = holder(mount, "jobs/job")
    for done, call in (
            ("mkdir jobs, which is there", lambda: os.mkdir(mount.path + "/jobs")),
            ("rmdir jobs, in use", lambda: os.rmdir(mount.path + "/jobs")),
            ("rmdir default", lambda: os.rmdir(mount.path + "/default")),
            ("mkdir in a lockspace", lambda: os.mkdir(mount.path + "/jobs/below")),
            ("a file beside the lockspaces", lambda: mount.open("/x")),
            ("rm of a held lock", lambda: os.remove(mount.lock("jobs/job"))),
            ("cat of a free lock", lambda: mount.open("free", os.O_RDONLY)),
            ("chmod of a held lock", lambda: os.chmod(mount.lock("jobs/job"), 0o600)),
            ("chown of a held lock", lambda: os.chown(mount.lock("jobs/job"), 1, 1)),
            ("ln -s", lambda: os.symlink("job", mount.lock("jobs/link"))),
            ("a name of 256 bytes", lambda: mount.open("x" * 256)),
            ("getfattr -n user.lockfs.lvb, not the holder",
             lambda: os.getxattr(mount.lock("jobs/job"), "user.lockfs.lvb")),
            ("getfattr -n user.other",
             lambda: os.getxattr(mount.lock("jobs/job"), "user.other"))):
        section.entry(done, error_of(call))
    held.end()
    mount.end()


def through_another_mount():
    section = Section("Held through another mount", "Two mounts of one `shm:` on this host; "
                      "`nightly` holds `default/job` in EX on the other one.")
    name = "lockfs-friendly-" + uuid.uuid4().hex[:12]
    try:
        mounts = [Mount(source="shm:" + name) for _ in range(2)]
        known(holder(mounts[1], "job").pid)
        fd = mounts[0].open("job")
        yield section, mounts[0], fd
        ask(section, mounts[0], "break job", done=".ctl: break job")
        section.entry("rm", error_of(os.remove, mounts[0].lock("job")))
        os.close(fd)
        for each in mounts:
            each.end()
    finally:
        os.remove("/dev/shm/" + name)


def sections(write_mode):
    commands()
    of_others()
    names()
    for section, _, fd in through_another_mount():
        write_mode(section, fd, "EX try")
        write_mode(section, fd, "EX timeout=50ms")
