#!/usr/bin/env python3
"""holder.py DIR LOCK: an actor within a guest. It opens LOCK, obeys the lines that come through the FIFO DIR/in, and
answers each with a line of JSON to the FIFO DIR/out. Unasked it says {"is": "lost"}, once, when poll(2) tells it.

    write MODE ...       granted (token, seconds) or refused (errno, seconds)
    tries MODE ...       tried: each at once and given back, "granted" or errno
    value, set HEX       the value block
    storm ROUNDS         EX, counter + 1 in the value block, UN; stormed: [counter, token] of each round
    serve PORT           obeys a `measure` on another node
    measure ROUNDS HOST PORT   measured: microseconds from the other's release to our grant, and a round trip
    report HOST PORT     reporting: when the lock is lost it also tells a `listen` on another node,
    listen PORT          which says heard, and at what time of its own clock

Each line is one command: nothing here waits but for the lock itself.
"""

import errno
import json
import os
import select
import signal
import socket
import sys
import threading
import time

VALUE = "user.lockfs.lvb"


class Actor:
    def __init__(self, folder, lock):
        # Both ways in one descriptor: an open of a FIFO waits for nobody, and nobody's close ends it.
        self.commands = os.open(f"{folder}/in", os.O_RDWR)
        self.answers = os.open(f"{folder}/out", os.O_RDWR)
        self.lock = os.open(lock, os.O_RDWR | os.O_CREAT, 0o666)
        self.watching, self.reporting = False, None
        self.say(kind="ready", pid=os.getpid(), comm=open("/proc/self/comm").read().strip())

    def say(self, kind, **what):
        os.write(self.answers, json.dumps({"is": kind, **what}).encode() + b"\n")

    def run(self):
        lines = b""
        while True:
            poll = select.poll()
            poll.register(self.commands, select.POLLIN)
            if self.watching:
                poll.register(self.lock, 0)  # POLLERR and POLLHUP come unasked
            for fd, events in poll.poll():
                if fd == self.lock:
                    self.watching = False
                    if self.reporting:
                        self.reporting.send(b"lost")
                    self.say("lost", events=events)
                    continue
                lines += os.read(self.commands, 4096)
                *whole, lines = lines.split(b"\n")
                for line in whole:
                    self.obey(line.decode())

    def obey(self, line):
        verb, _, rest = line.partition(" ")
        began = time.monotonic()
        try:
            getattr(self, f"do_{verb}")(rest)
        except OSError as error:
            took = time.monotonic() - began
            self.say("refused", errno=errno.errorcode[error.errno], seconds=took)

    def token(self):
        return int(os.getxattr(self.lock, "user.lockfs.token"))

    def do_write(self, command):
        began = time.monotonic()
        os.write(self.lock, command.encode())
        now = time.monotonic()
        released = command.startswith("UN")
        self.watching = not released
        self.say("granted", token=0 if released else self.token(), seconds=now - began, at=now)

    def do_tries(self, modes):
        results = {}
        for mode in modes.split():
            try:
                os.write(self.lock, f"{mode} try".encode())
                results[mode] = "granted"
                os.write(self.lock, b"UN")
            except OSError as error:
                results[mode] = errno.errorcode[error.errno]
        self.say("tried", results=results)

    def do_value(self, _):
        self.say("value", value=os.getxattr(self.lock, VALUE).hex())

    def do_set(self, value):
        os.setxattr(self.lock, VALUE, bytes.fromhex(value))
        self.say("set")

    def do_storm(self, rounds):
        grants = []
        for _ in range(int(rounds)):
            os.write(self.lock, b"EX")
            token = self.token()
            counter = int.from_bytes(os.getxattr(self.lock, VALUE), "little") + 1
            os.setxattr(self.lock, VALUE, counter.to_bytes(32, "little"))
            os.write(self.lock, b"UN")
            grants.append((counter, token))
        self.say("stormed", grants=grants)

    def do_report(self, to):
        self.reporting = udp(to)
        self.say("reporting")

    def do_listen(self, port):
        link = udp(port)
        self.say("listening")
        link.recv(64)
        self.say("heard", at=time.monotonic())

    def do_serve(self, port):
        link = udp(port)
        self.say("serving")
        while True:
            request, peer = link.recvfrom(64)
            if request == b"end":
                break
            if request == b"hold":
                os.write(self.lock, b"EX")
            elif request == b"wanted":
                poll = select.poll()
                poll.register(self.lock, select.POLLPRI)
                poll.poll()
            elif request == b"release":
                os.write(self.lock, b"UN")
                continue
            link.sendto(request, peer)
        self.say("served")

    def do_measure(self, arguments):
        rounds, _, to = arguments.partition(" ")
        link = udp(to)

        def ask(what):
            began = time.monotonic()
            link.send(what)
            link.recv(64)
            return time.monotonic() - began

        trips = sorted(ask(b"ping") for _ in range(25))
        times = []
        for _ in range(int(rounds)):
            ask(b"hold")
            ends = []
            waiter = threading.Thread(target=lambda: (os.write(self.lock, b"EX"), ends.append(time.monotonic())))
            waiter.start()
            ask(b"wanted")
            began = time.monotonic()
            link.send(b"release")
            waiter.join()
            times.append(ends[0] - began)
            os.write(self.lock, b"UN")
        link.send(b"end")
        trip = trips[len(trips) // 2]
        self.say("measured", micros=[(took - trip / 2) * 1e6 for took in times], trip=trip * 1e6)


def udp(where):
    """A socket at PORT, or one that speaks to HOST PORT."""
    link = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    *host, port = where.split()
    link.connect((host[0], int(port))) if host else link.bind(("0.0.0.0", int(port)))
    return link


def interrupted(*_):
    # Reached only once write(2) has returned: an error ends it, Python would go on waiting otherwise.
    raise InterruptedError(errno.EINTR, "SIGINT")


signal.signal(signal.SIGINT, interrupted)
Actor(*sys.argv[1:]).run()
