"""What the scenarios on clusters of virtual machines share: the world (cluster, mounts, actors), a line for each."""

import contextlib
import json
import os
import pathlib
import re
import shlex
import shutil
import subprocess
import sys
import time

from cluster import TOP, Cluster, NodeEnded, eventually

HERE = pathlib.Path(__file__).resolve().parent
PYTHON = os.path.realpath(sys.executable)
SKIP = 77
GREET_TIME = 60  # an emulated python starts within seconds, if nothing else runs


class Failed(Exception):
    """A scenario found what must not be."""


def check(condition, words):
    if not condition:
        raise Failed(words)


class Actor:
    """A process in a guest with one lock open: see holder.py. It can be told the next thing while it is not heard."""

    def __init__(self, node, name, lock):
        self.node, self.boot, self.folder = node, node.process, f"/tmp/actors/{name}"
        self.info = self.heard_of = None
        start = f"exec hr {PYTHON} -I -S {HERE}/holder.py {self.folder} {shlex.quote(lock)}"
        self._listen(
            f"mkdir -p {self.folder}; mkfifo {self.folder}/in {self.folder}/out; "
            f"setsid sh -c {shlex.quote(start)} >{self.folder}/log 2>&1 </dev/null & :"
        )

    def _listen(self, first=":"):
        # A read that was not answered in time goes on waiting: another one would steal from it.
        if self.heard_of is None:
            self.heard_of = self.node.send(f"{first}; read -r line <{self.folder}/out; echo \"$line\"")
        elif first != ":":
            self.node.send(first)

    def ready(self):
        if self.info is None:
            self.info = {}
            self.info = self.hear(GREET_TIME)
        return self.info

    @property
    def pid(self):
        return self.ready()["pid"]

    def tell(self, line):
        self.ready()
        self._listen(f"echo {shlex.quote(line)} >{self.folder}/in")

    def hear(self, timeout=60):
        """The next thing that it says; None if it says nothing in time."""
        if self.info is None:
            self.ready()
        self._listen()
        try:
            _, line = self.node.result(self.heard_of, timeout)
        except TimeoutError:
            return None
        self.heard_of = None
        if not line.strip():
            log = self.node.sh(f"tail -n 3 {self.folder}/log")[1]
            raise Failed(f"{self.folder} on node {self.node.number} has ended: {log.strip()}")
        return json.loads(line)

    def ask(self, line, timeout=60):
        self.tell(line)
        return self.hear(timeout)

    def expect(self, kind, timeout=60):
        said = self.hear(timeout)
        check(said and said["is"] == kind, f"node {self.node.number}: {kind} within {timeout} s, but: {said}")
        return said

    def take(self, mode, timeout=60):
        self.tell(f"write {mode}")
        return self.expect("granted", timeout)

    def release(self):
        return self.take("UN")

    def fails(self, command, *names, within=2.0):
        """The command ends soon with one of the errors; returns (errno's name, seconds by the guest's clock)."""
        said = self.ask(command, within + 20)
        where = f"node {self.node.number}: {command}"
        check(said and said["is"] == "refused", f"{where}: {' or '.join(names)} expected, but: {said}")
        check(said["errno"] in names, f"{where}: {' or '.join(names)} expected, but: {said['errno']}")
        check(said["seconds"] < within, f"{where}: {said['errno']} only after {said['seconds']:.1f} s")
        return said["errno"], said["seconds"]

    def signal(self, name):
        self.node.sh(f"kill -{name} {self.pid}")


class Mount:
    """A mount of dlm: on a node."""

    def __init__(self, world, node, name):
        self.node, self.boot, self.binary = node, node.process, world.binary
        self.point, self.log = f"/tmp/m-{name}", f"/tmp/{name}.log"
        self.mount()

    def mount(self):
        command = f"mkdir -p {self.point} && timeout 30 {self.binary} dlm: {self.point} 2>>{self.log}"
        status, words = self.node.hr(command)
        check(status == 0, f"node {self.node.number}: no mount ({status}): {words}{self.log_text()}")

    def log_text(self):
        return self.node.sh(f"cat {self.log}")[1]

    def lock(self, name, space="default"):
        return f"{self.point}/{space}/{name}"

    def daemon(self):
        """The pid of this node's daemon; None when there is none."""
        words = self.node.sh(f"ls -l /proc/[0-9]*/exe 2>/dev/null | grep -F {self.binary}")[1]
        found = re.search(r" /proc/(\d+)/exe", words)
        return int(found[1]) if found else None

    def unmount(self, lazily=False):
        status, words = self.node.hr(f"umount {'-l ' if lazily else ''}{self.point}", 30)
        check(status == 0, f"node {self.node.number}: umount: {words}")

    def see(self, name, space="default"):
        """(status, picture, seconds) of the lock, by a reader that is opened anew."""
        began = time.monotonic()
        status, text = self.node.hr(f"timeout 20 sed '' {self.lock(name, space)}")
        return status, text, time.monotonic() - began

    def names(self, space="default"):
        return self.node.hr(f"timeout 20 ls {self.point}/{space}")[1].split()


class World:
    """The cluster, and what the present scenario has made in it."""

    def __init__(self, cluster, binary):
        self.cluster, self.binary, self.made, self.count = cluster, binary, [], 0
        self.scenario = "none"

    def __getitem__(self, number):
        return self.cluster[number]

    def mount(self, number, suffix=""):
        made = Mount(self, self[number], f"{self.scenario}{suffix}")
        self.made.append(made)
        return made

    def mounts(self):
        return [self.mount(number) for number in self.cluster.nodes]

    def mounts_made(self):
        return [thing for thing in self.made if isinstance(thing, Mount)]

    def actor(self, mount, name, space="default"):
        self.count += 1
        made = Actor(mount.node, f"{self.scenario}-{self.count}", mount.lock(name, space))
        self.made.append(made)
        return made

    def lockspaces(self, number):
        return re.findall(r"^name +(\S+)", self[number].sh("dlm_tool ls")[1], re.M)

    def first_of(self, actors, timeout):
        """Waits for all actors: [(seconds from now by the host's clock, what it said)], in their order."""
        began, heard = time.monotonic(), [None] * len(actors)
        while None in heard and time.monotonic() < began + timeout:
            for i, actor in enumerate(actors):
                if heard[i] is None and (said := actor.hear(0.005)):
                    heard[i] = (time.monotonic() - began, said)
        return heard

    def clean(self):
        """The end of all that the scenario made, on nodes that still run as they did."""
        made, self.made = [thing for thing in self.made if thing.boot is thing.node.process], []
        for thing in made:
            if isinstance(thing, Actor):
                thing.signal("KILL")
        for mount in made:
            if isinstance(mount, Mount) and mount.daemon():
                mount.unmount(lazily=True)
                eventually(lambda mount=mount: mount.daemon() is None, f"the daemon of {mount.point} ends", 15)

    def reboot(self):
        self.made = []
        for node in self.cluster.nodes.values():
            node.kill()
        self.cluster.boot()

    def findings(self):
        """What each node has to say after a failure."""
        commands = (
            f"tail -n 12 /tmp/{self.scenario}.log",
            "dmesg | tail -n 12",
            "dlm_tool ls",
            "cd /sys/kernel/dlm && for s in *; do echo $s; dlm_tool lockdump $s | head -n 12; done",
            "tail -n 12 /var/log/dlm_controld.log",
        )
        for number, node in self.cluster.nodes.items():
            for command in commands:
                yield f"node {number}: {command}"
                try:
                    yield from ("  " + line for line in node.sh(command, 10)[1].splitlines())
                except (NodeEnded, TimeoutError, OSError, AttributeError) as error:
                    yield f"  no answer: {str(error)[:100]}"
                    break


def mount_dlmfs(node):
    """The DLM's own filesystem, of OCFS2, over the same DLM; its locks are in /tmp/dlmfs/dom."""
    status, words = node.sh(
        "[ -d /tmp/dlmfs/dom ] && exit; modprobe -a ocfs2_stackglue ocfs2_stack_user ocfs2_dlmfs && "
        "echo pcmk >/sys/fs/ocfs2/cluster_stack && printf '\\0' >/sys/kernel/config/dlm/cluster/cluster_name && "
        "mkdir -p /tmp/dlmfs && mount -t ocfs2_dlmfs none /tmp/dlmfs && mkdir /tmp/dlmfs/dom")
    check(status == 0, f"node {node.number}: dlmfs: {words}")


def run_one(world, scenario):
    """Runs one scenario and prints its line; False if it failed."""
    world.scenario = scenario.__name__
    name, began = scenario.__name__.replace("_", " "), time.monotonic()
    try:
        words = scenario(world)
        world.clean()
    except Exception as error:  # the next ones get their turn, whatever this one stumbled over
        print(f"FAIL {name}   {type(error).__name__ if not isinstance(error, Failed) else ''} {error}", flush=True)
        for line in world.findings():
            print(f"       {line}", flush=True)
        world.reboot()
        return False
    print(f"ok   {name}   {words} [{time.monotonic() - began:.1f} s]", flush=True)
    return True


def run(scenarios, nodes, **options):
    """Runs the scenarios, or those named after the binary's path, on one cluster; returns the exit status."""
    if len(sys.argv) < 2:
        print(f"usage: {sys.argv[0]} LOCKFS [SCENARIO...]", file=sys.stderr)
        return 2
    staged = subprocess.run([HERE / "stage.sh"], check=False).returncode
    if staged == SKIP and "dlm" in os.environ.get("LOCKFS_TEST_REQUIRE", "").split():
        print("LOCKFS_TEST_REQUIRE names dlm: it may not be skipped")
        return 1
    if staged != 0:
        return staged
    # A guest caches what it reads from the host's root: the binary must not change while it runs.
    copy = TOP / f"build/try/{os.getpid()}"
    binary = copy / "bin/lockfs"
    binary.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(sys.argv[1], binary)
    shutil.copytree(pathlib.Path(sys.argv[1]).resolve().parent.parent / "lib/lockfs", copy / "lib/lockfs")
    known = {scenario.__name__: scenario for scenario in scenarios}
    chosen = [known[name] for name in sys.argv[2:] or known]
    began = time.monotonic()
    try:
        with Cluster(nodes, **options) as cluster:
            cluster.boot()
            print(f"     {nodes} nodes are up after {time.monotonic() - began:.1f} s", flush=True)
            world = World(cluster, binary)
            passed = [run_one(world, scenario) for scenario in chosen]
    finally:
        shutil.rmtree(copy, ignore_errors=True)
    print(f"     {sum(passed)} of {len(passed)} passed in {time.monotonic() - began:.0f} s")
    return 0 if all(passed) else 1
