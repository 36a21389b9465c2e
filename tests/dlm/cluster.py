#!/usr/bin/env python3
"""Virtual machines that are a DLM cluster, driven from here. `scripts/dlm-cluster stage` must have been run.

    with Cluster(2) as cluster:
        cluster.boot()
        print(cluster[1].sh("dlm_tool status"))    # (status, output)
        cluster[1].kill()

Emulated, as nested KVM hangs on some hosts. All end with this process, however it ends.
"""

import argparse
import atexit
import base64
import contextlib
import ctypes
import fcntl
import json
import os
import pathlib
import re
import shlex
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time

TOP = pathlib.Path(__file__).resolve().parents[2]
STAGED = TOP / "build/dlm"
PR_SET_PDEATHSIG, CLONE_NEWNET = 1, 0x40000000
SIOCGIFFLAGS, SIOCSIFFLAGS, IFF_UP = 0x8913, 0x8914, 1
libc = ctypes.CDLL(None, use_errno=True)


class NodeEnded(Exception):
    """The virtual machine is gone."""


def in_host_root(command):
    """The guest's command that runs `command` by bash in the host's root, in this project's directory."""
    return f"hr bash -c {shlex.quote(f'cd {shlex.quote(str(TOP))} && {command}')}"


def eventually(condition, what, timeout=30.0):
    """Waits until condition() is true, and returns what it said."""
    end = time.monotonic() + timeout
    while not (said := condition()):
        if time.monotonic() > end:
            raise TimeoutError(f"{what}: not within {timeout} s")
        time.sleep(0.05)
    return said


def connect(path):
    """Connects to a unix socket that QEMU is about to make."""
    link = socket.socket(socket.AF_UNIX)

    def connected():
        with contextlib.suppress(FileNotFoundError, ConnectionRefusedError):
            link.connect(str(path))
            return True

    eventually(connected, f"QEMU does not listen at {path}")
    return link


def checked(result):
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def new_network():
    """A descriptor of a network namespace that has a loopback interface and reaches nothing."""
    mine = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    checked(libc.unshare(CLONE_NEWNET))
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            request = fcntl.ioctl(sock, SIOCGIFFLAGS, struct.pack("16sh22x", b"lo", 0))
            flags = struct.unpack("16sh22x", request)[1]
            fcntl.ioctl(sock, SIOCSIFFLAGS, struct.pack("16sh22x", b"lo", flags | IFF_UP))
        return os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    finally:
        checked(libc.setns(mine, CLONE_NEWNET))
        os.close(mine)


class Node:
    """One virtual machine. Commands run at the same time as each other, by the guest's busybox shell."""

    def __init__(self, cluster, number):
        self.cluster, self.number = cluster, number
        self.console = cluster.dir / f"console{number}"
        self.process = self.port = None
        self.sent, self.received, self.results = 0, b"", {}

    # Life and death.

    def start(self):
        """Boots it; await_ready() waits for the end of that."""
        files = {what: self.cluster.dir / f"{what}{self.number}" for what in ("agent", "qmp", "net")}
        for file in files.values():
            file.unlink(missing_ok=True)
        self.sent, self.received, self.results = 0, b"", {}
        with open(self.cluster.dir / f"qemu{self.number}", "wb") as log:
            prepare = self._in_child(os.getpid())
            self.process = subprocess.Popen(
                self._qemu(files), stdin=subprocess.DEVNULL, stdout=log, stderr=log, preexec_fn=prepare
            )
        self.port = connect(files["agent"])

    def _qemu(self, files):
        cluster, number = self.cluster, self.number
        network = {
            1: "hubport,id=n0,hubid=0",
            2: f"dgram,id=n0,local.type=unix,local.path={files['net']},"
            f"remote.type=unix,remote.path={cluster.dir}/net{3 - number}",
            3: "socket,id=n0,mcast=230.0.0.1:7700,localaddr=127.0.0.1",
        }[len(cluster.nodes)]
        kernel_arguments = f"node={number} nodes={len(cluster.nodes)} token={cluster.token} fence={cluster.fence} top={TOP}"
        arguments = f"""
            qemu-system-x86_64 -accel tcg,thread=multi -smp {cluster.cpus} -m {cluster.memory}
            -display none -no-reboot -nodefaults -kernel {STAGED}/vmlinuz -initrd {STAGED}/base.img
            -serial file:{self.console} -qmp unix:{files["qmp"]},server=on,wait=off
            -device virtio-serial-pci -chardev socket,id=agent,path={files["agent"]},server=on,wait=off
            -device virtserialport,chardev=agent -device virtio-rng-pci
            -netdev {network} -device virtio-net-pci,netdev=n0,romfile=,mac=52:54:00:77:00:{number:02x}
            -virtfs local,path=/,mount_tag=hostroot,security_model=none,readonly=on,multidevs=remap"""
        return [*arguments.split(), "-append", f"console=ttyS0 panic=-1 loglevel=4 {kernel_arguments}"]

    def _in_child(self, parent):
        network = self.cluster.network

        def prepare():
            libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
            if os.getppid() != parent:
                os._exit(1)
            if network is not None:
                checked(libc.setns(network, CLONE_NEWNET))

        return prepare

    def await_ready(self, timeout=120):
        """Waits until the DLM is ready."""
        status, output = self.result(0, timeout)
        if status != 0:
            raise RuntimeError(f"node {self.number} has no cluster:\n{output}")

    def kill(self):
        """As if its power were cut."""
        if self.process is None:
            return
        self.process.kill()
        self.process.wait()
        self.port.close()
        self.process = None

    def restart(self):
        """Power off, and on again: it joins the cluster anew."""
        self.kill()
        self.start()
        self.await_ready()

    def freeze(self):
        self.process.send_signal(signal.SIGSTOP)

    def thaw(self):
        self.process.send_signal(signal.SIGCONT)

    def cut(self):
        """Takes it off the network."""
        self._monitor("set_link", name="n0", up=False)

    def heal(self):
        self._monitor("set_link", name="n0", up=True)

    def _monitor(self, command, **arguments):
        with connect(self.cluster.dir / f"qmp{self.number}") as link, link.makefile("rw") as file:
            file.readline()  # the greeting
            for request in {"execute": "qmp_capabilities"}, {"execute": command, "arguments": arguments}:
                file.write(json.dumps(request) + "\n")
                file.flush()
                while "event" in (answer := json.loads(file.readline())):
                    pass
                if "return" not in answer:
                    raise RuntimeError(f"node {self.number}: {command}: {answer}")

    # Commands.

    def send(self, command):
        """Starts a command in the guest; returns its number, for output() and result()."""
        self.sent += 1
        self.port.sendall(b"%d %s\n" % (self.sent, base64.b64encode(command.encode())))
        return self.sent

    def result(self, number, timeout=60):
        """(status, output) of a command that was sent, once it has ended."""
        end = time.monotonic() + timeout
        while number not in self.results:
            self._receive(end)
        status, output = self.results.pop(number)
        return status, output.decode(errors="surrogateescape")

    def output(self, number):
        """What a command that was sent has printed so far, if it has not ended."""
        return self.sh(f"cat /run/agent/{number} 2>/dev/null")[1]

    def sh(self, command, timeout=60):
        """Runs a command in the guest: (status, output)."""
        return self.result(self.send(command), timeout)

    def hr(self, command, timeout=60):
        """Runs a command in the host's root, in this project's directory: (status, output)."""
        return self.sh(in_host_root(command), timeout)

    def bg(self, command, log):
        """Starts a command as a session of its own that prints to the guest's file `log`; returns its pid."""
        return int(self.sh(f"setsid sh -c {shlex.quote(command)} >{log} 2>&1 </dev/null & echo $!")[1])

    def members(self):
        """The nodes of which this one's dlm_controld says that they are members."""
        return {int(node) for node in re.findall(r"^node (\d+) M", self.sh("dlm_tool status")[1], re.M)}

    def quorate(self):
        return re.search(r"Quorate: *Yes", self.sh("corosync-quorumtool -s")[1]) is not None

    def _receive(self, end):
        """Takes up one answer, "ID STATUS BYTES" and the bytes; TimeoutError if it is not there by `end`."""
        while True:
            head, newline, rest = self.received.partition(b"\n")
            if newline:
                number, status, size = map(int, head.split())
                if len(rest) >= size:
                    self.results[number] = status, rest[:size]
                    self.received = rest[size:]
                    return
            self.port.settimeout(max(end - time.monotonic(), 0.001))
            try:
                data = self.port.recv(1 << 20)
            except TimeoutError:
                raise TimeoutError(f"node {self.number}: no answer in time") from None
            except ConnectionResetError:
                data = b""
            if not data:
                raise NodeEnded(f"node {self.number} ended; its console:\n{self.console_text()}")
            self.received += data

    def console_text(self):
        return self.console.read_text(errors="replace")[-2000:] if self.console.exists() else ""


class Cluster:
    """One to three nodes: cluster[1] and so on. It has a directory and, with three, a network of its own."""

    def __init__(self, nodes, token=2000, fence="off", memory=512, cpus=None):
        if not (STAGED / "base.img").exists():
            raise FileNotFoundError("no virtual machines here: run scripts/dlm-cluster stage")
        self.token, self.fence, self.memory, self.cpus = token, fence, memory, cpus or (2 if nodes == 1 else 1)
        self.dir = pathlib.Path(tempfile.mkdtemp(prefix="lockfs-dlm."))
        self.network = new_network() if nodes == 3 else None
        self.nodes = {number: Node(self, number) for number in range(1, nodes + 1)}
        atexit.register(self.close)
        if signal.getsignal(signal.SIGTERM) == signal.SIG_DFL:
            signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))

    def __getitem__(self, number):
        return self.nodes[number]

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def boot(self):
        """Starts all nodes and waits until each has all as members."""
        for node in self.nodes.values():
            node.start()
        for node in self.nodes.values():
            node.await_ready()
        self.await_members(*self.nodes)

    def await_members(self, *members, seen_by=None):
        """Waits until those nodes (all of `members` unless told) have exactly these members."""
        for number in seen_by or members:
            eventually(lambda node=self[number]: node.members() == set(members), f"node {number} has members {members}")

    def close(self):
        for node in self.nodes.values():
            node.kill()
        if self.network is not None:
            os.close(self.network)
            self.network = None
        shutil.rmtree(self.dir, ignore_errors=True)
        atexit.unregister(self.close)


def follow(node, command, timeout):
    """Runs a command on the node and prints what it prints as it comes; returns its status."""
    number, end, shown = node.send(command), time.monotonic() + timeout, 0

    def show(text):
        nonlocal shown
        sys.stdout.write(text[shown:])
        sys.stdout.flush()
        shown = max(shown, len(text))

    while time.monotonic() < end:
        with contextlib.suppress(TimeoutError):
            status, output = node.result(number, timeout=0.5)
            show(output)
            return status
        show(node.output(number))
    print(f"node {node.number}: not ended within {timeout} s", file=sys.stderr)
    return 124


def main():
    parser = argparse.ArgumentParser(prog="dlm-cluster run", description="Runs a command on node 1 of a DLM cluster.")
    parser.add_argument("-n", dest="nodes", type=int, choices=(1, 2, 3), default=1)
    parser.add_argument("-t", dest="timeout", type=float, default=300, metavar="SECONDS")
    parser.add_argument("-m", dest="memory", type=int, default=1024, metavar="MIB")
    parser.add_argument("--token", type=int, default=1000, metavar="MS")
    parser.add_argument("--fence", choices=("off", "quorum", "none", "stub"), default="off")
    parser.add_argument("command", nargs="+")
    options = parser.parse_args()
    sys.stdout.reconfigure(errors="surrogateescape")
    with Cluster(options.nodes, options.token, options.fence, options.memory) as cluster:
        cluster.boot()
        return follow(cluster[1], in_host_root(shlex.join(options.command)), options.timeout)


if __name__ == "__main__":
    sys.exit(main())
