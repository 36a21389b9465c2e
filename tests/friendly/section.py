# SPDX-License-Identifier: MIT
"""Sections of doc/messages.md: what was done, how it ended, in which words."""

import re
import socket

import page

pids = {}    # Of a process: what the page calls it.
places = {}  # Of this run: what the page calls it.


def stable(words):
    """Without what differs from run to run."""
    for place in sorted(places, key=len, reverse=True):
        words = words.replace(place, places[place])
    words = re.sub(rf"\) on {re.escape(socket.gethostname())}\b", ") on this-host", words)
    return re.sub(r"\bpid (\d+)", lambda m: f"pid {pids.get(int(m[1]), m[1])}", words)


def known(pid):
    """This process has a place of its own on the page, in the order in which they came."""
    pids.setdefault(pid, 1001 + len(pids))


class Section:
    all = []

    def __init__(self, title, prose):
        self.title = title
        self.prose = prose
        self.lines = []
        self.missing = None  # A part that this machine lacks: then the section is as it was kept.
        Section.all.append(self)

    def entry(self, done, outcome, words=""):
        print(f"{self.title}: {done}: {outcome}")
        self.lines.append(f"{stable(done):<58} {outcome}".rstrip())
        for line in words.splitlines():
            self.lines.append("  " + stable(line))

    def text(self):
        if self.missing:
            found = re.search(rf"^## {re.escape(self.title)}\n.*?(?=^## |\Z)",
                              page.kept("doc/messages.md"), re.M | re.S)
            return found[0].rstrip("\n") if found else ""
        body = "\n".join(f"    {line}".rstrip() for line in self.lines)
        return f"## {self.title}\n\n{self.prose}\n\n{body}"
