# SPDX-License-Identifier: MIT
"""snippet.py FILE PROGRAM COMMAND...: one way to lock of doc/snippets, as the README shows it. It
takes the lock around ./backup.sh; others are kept out meanwhile; it is free afterwards, however it
ends."""

import os
import re
import select
import shutil
import signal
import subprocess
import sys
import tempfile

import page
from mounts import Mount, ends, wait_until

# Where ./backup.sh has the descriptor: the README names them.
KEPT_BY_BACKUP = ("flock.sh", "noclobber.sh", "lock.php")

# What ./backup.sh is here: it says more than a pipe holds, that it runs, and ends when it is told.
BACKUP = """#!/bin/sh
yes backup | head -c 200000
echo running >said
read -r word <go
"""


def check(condition, what):
    if not condition:
        sys.exit(f"FAIL: {what}")
    print("ok:", what, flush=True)


class Snippet:
    """One run of it, in a directory and a process group of its own."""

    def __init__(self, command, scratch):
        self.place = tempfile.mkdtemp(dir=scratch)
        with open(self.place + "/backup.sh", "w") as file:
            file.write(BACKUP)
        os.chmod(self.place + "/backup.sh", 0o755)
        for fifo in ("said", "go"):
            os.mkfifo(f"{self.place}/{fifo}")
        self.said = os.open(self.place + "/said", os.O_RDONLY | os.O_NONBLOCK)
        self.process = subprocess.Popen(command, cwd=self.place, start_new_session=True,
                                        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
                                        text=True)
        ends.append(self)

    def runs(self):
        try:
            return os.read(self.said, 100) != b""
        except BlockingIOError:
            return False

    def let_go(self):
        with open(self.place + "/go", "w") as go:
            go.write("end\n")
        _, words = self.process.communicate(timeout=60)
        check(self.process.returncode == 0, f"it ends well {words}")

    def end(self):
        if self in ends:
            ends.remove(self)
        try:
            os.killpg(self.process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        self.process.wait()


def build(file, command, scratch, mount):
    """The snippet with our mount's path, and the command that runs it."""
    with open(f"{page.ROOT}/doc/snippets/{file}") as source:
        text = source.read()
    check("/mnt/locks/default/backup" in text, f"{file} locks /mnt/locks/default/backup")
    with open(f"{scratch}/{file}", "w") as copy:
        copy.write(text.replace("/mnt/locks", mount.path))
    if command[0] in ("cc", "rustc", "go"):
        subprocess.run([*command, "-o", f"{scratch}/program", file], cwd=scratch, check=True, env={
            **os.environ, "GOCACHE": scratch + "/cache", "GOPATH": scratch + "/path",
            "GOTOOLCHAIN": "local", "GOPROXY": "off", "CGO_ENABLED": "0"})
        return [f"{scratch}/program"]
    return [*command, f"{scratch}/{file}"]


def kill_holder(lock):
    """Kills who took the lock, which may not be the snippet's first process: flock(1) is not."""
    with open(lock) as picture:
        pid = int(re.search(r"\bpid: (\d+)\n", picture.read())[1])
    process = os.pidfd_open(pid)
    signal.pidfd_send_signal(process, signal.SIGKILL)
    select.select([process], [], [])  # Readable at its end.
    os.close(process)


def main(file, command, scratch):
    mount = Mount()
    lock = mount.lock("backup")
    run = build(file, command, scratch, mount)
    flock = ["flock", "-n", lock, "true"]

    first = Snippet(run, scratch)
    wait_until(first.runs, "./backup.sh runs")
    with open(lock) as picture:
        check("\nmode: EX\n" in picture.read(), "it holds the lock in EX")
    check(subprocess.run(flock).returncode == 1, "flock -n is refused meanwhile")

    second = Snippet(run, scratch)
    if file == "noclobber.sh":
        second.process.communicate(timeout=60)
        check(second.process.returncode != 0, "a second one is refused")
    else:
        def waits():
            with open(lock) as picture:
                return "\nwaiters_total: 1\n" in picture.read()

        wait_until(waits, "a second one waits")
    check(not second.runs(), "a second one does not run")
    first.let_go()
    if file != "noclobber.sh":
        wait_until(second.runs, "then the second one runs")
        second.let_go()
    wait_until(lambda: not os.path.exists(lock), "it is free afterwards")
    check(subprocess.run(flock).returncode == 0, "it is free afterwards")

    third = Snippet(run, scratch)
    wait_until(third.runs, "./backup.sh runs again")
    third.end()
    wait_until(lambda: not os.path.exists(lock), "it is free after kill -9")
    print("ok: it is free after kill -9")

    fourth = Snippet(run, scratch)
    wait_until(fourth.runs, "./backup.sh runs once more")
    kill_holder(lock)
    if file in KEPT_BY_BACKUP:
        check(subprocess.run(flock).returncode == 1, "killed alone, it leaves the lock to backup.sh")
    else:
        wait_until(lambda: not os.path.exists(lock), "killed alone, it lets go")
        print("ok: killed alone, it lets go")
    fourth.end()
    wait_until(lambda: not os.path.exists(lock), "it is free when backup.sh has ended, too")


program, words = sys.argv[2], sys.argv[3:]
for each in ("flock", program):
    if shutil.which(each) is None:
        page.skip(each, "not installed")
with tempfile.TemporaryDirectory(prefix="lockfs-friendly-", ignore_cleanup_errors=True) as place:
    main(sys.argv[1], words or [program], place)
