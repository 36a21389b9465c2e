#!/usr/bin/env python3
"""dlm: on one node: a cluster that comes later, the contract suite over two daemons, programs of libdlm, what a node
must have at start, the mount tests on Debian's kernel, dlmfs beside it.   one_node.py LOCKFS [SCENARIO...]"""

import re
import sys
import time

from cluster import eventually
from lib import TOP, check, mount_dlmfs, run

BIN = "build/release/bin"
ONLY = 1


def gtest(world, program, chosen, timeout):
    """Runs tests in the guest; returns how it went in words."""
    variables = f"LOCKFS_BINARY={world.binary}"
    began = time.monotonic()
    status, text = world[ONLY].hr(
        f"{variables} timeout {timeout} {BIN}/{program} --gtest_brief=1 --gtest_filter='{chosen}'", timeout + 30
    )
    passed = re.search(r"\[  PASSED  \] (\d+) test", text)
    skipped = re.search(r"\[  SKIPPED \] (\d+) test", text)
    failed = "\n".join(line for line in text.splitlines() if "SKIP" not in line)
    check(status == 0 and passed and int(passed[1]) > 0, f"{program} {chosen}: status {status}\n{failed[-6000:]}")
    words = f"{passed[1]} passed, {skipped[1] if skipped else 0} skipped, {time.monotonic() - began:.0f} s"
    return words


def cluster_after_the_mount(world):
    """A lockspace with dlm: of a mount that was there before corosync: it is joined when the cluster is up.

    First, while the kernel has no lockspace: dlmfs and plain programs leave theirs there, and over lockspaces of an
    earlier dlm_controld a new one does not start ("found uncontrolled lockspace")."""
    node, point = world[ONLY], "/tmp/m-late"
    node.sh("killall -9 dlm_controld corosync")
    node.sh(f"mkdir -p {point}; printf '[lockspace.shared]\\nbackend = \"dlm:\"\\n' >/tmp/late.toml")
    status, words = node.hr(f"timeout 30 {world.binary} --config /tmp/late.toml memory: {point} 2>>/tmp/{world.scenario}.log")
    check(status == 0, f"no mount ({status}): {words}")
    try:
        refused = node.hr(f"flock -n {point}/shared/x true")
        check(refused[0] == 66 and "No route to host" in refused[1], f"nothing is granted without a cluster: {refused}")
        check(node.hr(f"flock -n {point}/default/x true")[0] == 0, "its other lockspaces work")
        status, words = node.sh("cluster-start 1", 90)
        check(status == 0, f"no cluster: {words}")
        began = time.monotonic()
        eventually(lambda: node.hr(f"flock -n {point}/shared/x true")[0] == 0, "a lock is granted", 20)
        took = time.monotonic() - began
        check("lockfs_shared" in world.lockspaces(ONLY), "by the DLM")
        tried = node.hr(f"flock {point}/shared/x {BIN}/plain_dlm lockfs_shared x EX try </dev/null")
        check(tried[0] == 1, f"what the mount holds, libdlm cannot have: {tried}")
    finally:
        node.hr(f"umount {point}")
    eventually(lambda: "lockfs_shared" not in world.lockspaces(ONLY), "unmounted, it is left", 15)
    return f"refused before, granted {took:.1f} s after the cluster was up"


def contract(world):
    """The contract of all backends, two daemons of this node."""
    return gtest(world, "contract_tests", "*/dlm", 400)


def mounts_on_this_kernel(world):
    """What a mount promises, on Debian's kernel, which is older than the one that built it."""
    # Emulated it is too slow for those with many thousands of anything, or with a tenth of a second.
    slow = "*Stress*:Directories.*:HungLockspace.KeepsNoOther*:Deadlocks.*AThousandTimes*"
    version = world[ONLY].sh("uname -r")[1].strip()
    return f"{version}: " + gtest(world, "fs_tests", "-" + slow, 300)


def plain(world, arguments):
    """A program of libdlm in the background; returns what waits for its grant, and what ends it."""
    node, folder = world[ONLY], f"/tmp/plain{world.count}"
    world.count += 1
    node.sh(f"mkdir {folder}; mkfifo {folder}/in")
    node.bg(f"hr {TOP}/{BIN}/plain_dlm {arguments} <{folder}/in >{folder}/out 2>&1", "/dev/null")
    writer = node.bg(f"exec sleep 10000 >{folder}/in", "/dev/null")  # Its input ends when this does.

    def granted(timeout=20):
        eventually(lambda: node.sh(f"cat {folder}/out")[1].startswith("granted"), f"plain_dlm {arguments}", timeout)
        return node.sh(f"cat {folder}/out")[1].strip()

    def end(value=None):
        if value is not None:
            node.sh(f"echo {value} >{folder}/in")
        node.sh(f"kill -9 {writer}")

    return granted, end


def programs_of_libdlm(world):
    """They and the mount exclude each other on one resource, and share its value block."""
    mount = world.mount(ONLY)
    actor, waiter = world.actor(mount, "common"), world.actor(mount, "common")
    actor.take("EX")
    actor.ask("set " + b"from lockfs".ljust(32, b"\0").hex())
    tried = world[ONLY].hr(f"{BIN}/plain_dlm lockfs_default common EX try </dev/null")
    check(tried[0] == 1, f"what the mount holds, libdlm cannot have: {tried}")
    granted, end = plain(world, "lockfs_default common EX")
    dump = eventually(lambda: world[ONLY].sh("dlm_tool lockdump lockfs_default | grep common")[1], "dlm_tool sees it")
    actor.release()
    check("from lockfs" in granted(), f"it waited, has it, and reads our value: {granted()}")
    check(actor.fails("write EX try", "EAGAIN"), "what libdlm holds, the mount cannot have")
    status, picture, _ = mount.see("common")
    check(status == 0 and "mode: EX" in picture and "holders_total: 1" in picture, f"held elsewhere: {picture}")
    status, words = world[ONLY].hr(f"set -C; : 9>{mount.lock('common')}")
    check(status != 0 and "exist" in words, f"O_EXCL: {words}")
    waiter.tell("write EX")
    end("from-libdlm")
    waiter.expect("granted")
    value = bytes.fromhex(waiter.ask("value")["value"]).rstrip(b"\0")
    check(value == b"from-libdlm", f"and its value comes back: {value}")
    waiter.release()
    granted, end = plain(world, "lockfs_default common EX")
    granted(5)  # What the mount only keeps it gives back.
    end()
    return f"in both directions; dlm_tool lockdump: {dump.split(chr(10))[0][:60]}"


def lockspaces_of_others(world):
    """prefix= set to none: the names are those of other programs; with it they stay apart."""
    mount = world.mount(ONLY)
    status, words = world[ONLY].hr(
        f"mkdir -p /tmp/m-none && timeout 30 {world.binary} dlm:?prefix= /tmp/m-none && mkdir -m 750 /tmp/m-none/theirs")
    check(status == 0, words)
    try:
        names = world.lockspaces(ONLY)
        check({"lockfs_default", "default", "theirs"} <= set(names), f"dlm_tool ls: {names}")
        modes = world[ONLY].sh("stat -c %a /dev/dlm_lockfs_default /dev/dlm_theirs")[1].split()
        check(modes == ["600", "640"], f"the modes of the kernel's devices: {modes}")
        granted, end = plain(world, "theirs x PR")
        granted()
        held = world[ONLY].hr("flock -n -s /tmp/m-none/theirs/x true && ! flock -n /tmp/m-none/theirs/x true")
        check(held[0] == 0, f"PR goes with PR, not with EX: {held}")
        end()
        apart = world[ONLY].hr(f"flock /tmp/m-none/default/y flock -n {mount.lock('y')} true")
        check(apart[0] == 0, "default and lockfs_default are two lockspaces")
        busy = plain(world, "theirs z EX")
        busy[0]()
        refused = world[ONLY].hr("rmdir /tmp/m-none/theirs")
        check(refused[0] != 0 and "busy" in refused[1], f"a program of this host holds in it: {refused}")
        check(world[ONLY].hr("flock -n /tmp/m-none/theirs/w true")[0] == 0, "and it still works")
        forced = world[ONLY].hr("exec 9<>/tmp/m-none/theirs/.ctl; echo 'leave force' >&9")
        check(forced[0] == 0 and "theirs" not in world[ONLY].hr("ls /tmp/m-none")[1], f"leave force: {forced}")
        busy[1]()
        eventually(lambda: "theirs" not in world.lockspaces(ONLY), "once that program has ended the host has left", 10)
        check(world[ONLY].hr("mkdir /tmp/m-none/theirs && rmdir /tmp/m-none/theirs")[0] == 0, "it can come again")
    finally:
        world[ONLY].hr("umount /tmp/m-none")
    eventually(lambda: "default" not in world.lockspaces(ONLY), "unmounted, it is left", 15)
    return "apart with a prefix, the same without; EBUSY while another program holds in it, leave force"


def beside_dlmfs(world):
    """What our ancestor in the kernel cannot do, and the mount does."""
    mount_dlmfs(world[ONLY])
    mount, node = world.mount(ONLY), world[ONLY]
    theirs, ours = "/tmp/dlmfs/dom", f"{mount.point}/default"

    # To lock on dlmfs is to open; here it is a mode string.
    takes = {theirs: 'take() { eval "exec $1<>$F"; }', ours: 'take() { eval "exec $1<>$F"; echo "$2" >&$1; }'}

    def both(name, script):
        """The script on a lock of each, as $F: (dlmfs, lockfs) succeeded."""
        results = [node.hr(f"F={folder}/{name}; {take}; {script}", 60)[0] == 0 for folder, take in takes.items()]
        check(results == [False, True], f"{name}: dlmfs {results[0]}, lockfs {results[1]}")

    both("two-processes", "take 9 EX && ! (take 8 'EX try') 2>/dev/null")
    both("o-excl-falls-with-its-holder", "(set -C; exec 9>$F) && (set -C; exec 9>$F) 2>/dev/null")
    both("timeout", "take 9 EX && ! (take 8 'EX timeout=100ms') 2>/dev/null")
    both("who-holds-it", "take 9 EX && sed '' $F | grep -q 'comm: '")
    both("six-modes", "take 9 PW && take 8 CR && ! (take 7 'CW try') 2>/dev/null")
    both("conversions", "take 9 EX && take 8 NL && ! (echo 'PR try' >&8) 2>/dev/null && echo PR >&9 && echo 'PR try' >&8")
    both("what-is-free-is-not-listed", "take 9 EX && ls ${F%/*} | grep -q free && exec 9<&- && ! ls ${F%/*} | grep -q free")
    both("a-name-of-more-than-31-bytes-is-a-lock", "take 9 'EX try'")
    return "two processes, O_EXCL, timeouts, who holds it, six modes, conversions, ls, names"


def figures(world):
    """Side by side in one run; printed, not judged."""
    mount_dlmfs(world[ONLY])
    status, text = world[ONLY].hr(
        f"timeout 200 {BIN}/dlm_bench local {world.binary} {BIN}/null_fs /tmp/dlmfs/dom 3 200", 230)
    check(status == 0, text)
    return "\n       " + text.strip().replace("\n", "\n       ")


def what_is_missing_at_start(world):
    """Last, for it takes the cluster down: each lack has its words, at once."""
    node = world[ONLY]

    def start(words, prefix=""):
        status, text = node.hr(f"mkdir -p /tmp/m-start; timeout 20 {prefix} {world.binary} dlm: /tmp/m-start")
        check(status == 1 and words in text, f"{words}: status {status}: {text}")

    start("CAP_SYS_ADMIN", "setpriv --bounding-set=-sys_admin --inh-caps=-sys_admin")
    node.sh("mv /dev/dlm-control /dev/dlm-control.away")
    start("/dev/misc/dlm-control")
    node.sh("mv /dev/dlm-control.away /dev/dlm-control")
    node.sh("killall -9 dlm_controld")
    start("systemctl start dlm")
    node.sh("killall -9 corosync")
    start("corosync")
    return "no right, no device, no dlm_controld, no corosync"


SCENARIOS = (cluster_after_the_mount, programs_of_libdlm, lockspaces_of_others, beside_dlmfs, figures, contract,
             mounts_on_this_kernel, what_is_missing_at_start)

if __name__ == "__main__":
    sys.exit(run(SCENARIOS, nodes=1, token=2000, memory=2048))
