# SPDX-License-Identifier: MIT
"""doc/messages.md: every message of lockfs, provoked. Whoever changes one sees it on that page."""

import glob
import os
import re
import subprocess
import tempfile

import control_messages
import lock_messages
import page
import start_messages
from mounts import LOCKFS, call_me
from section import Section, known, places

if os.geteuid() != 0:
    page.skip("root", "messages to other users are for root to provoke")

HEAD = """# Messages

What lockfs says when it refuses, each provoked by tests/friendly/messages.py, which fails when one
of them is another one: `LOCKFS_WRITE_PAGES=1 ctest -R friendly.messages` writes this page anew. The
errno, or the exit code, stands behind what was done; the words stand below. Pids and paths are not
those of the run.
"""

SOURCES = ["fs/command.cc", "fs/command_line.cc", "fs/config_file.cc", "fs/control_file.cc",
           "fs/lock_fs.cc", "fs/lock_fs_locks.cc",
           "fs/main.cc", "fs/mount_point.cc", "fs/options.cc", "fs/picture.cc", "fs/reload.cc", "fs/serve.cc", "fs/session.cc",
           "core/words.cc", "backends/registry.cc",
           "backends/*/*_url.cc", "backends/server_url.h", "backends/net/endpoint.cc",
           "backends/dlm/module.cc"]
LITERALS = re.compile(r'"(?:[^"\\]|\\.)*"(?:\s*"(?:[^"\\]|\\.)*")*')


def sentences(source):
    """Pieces of three words and more of the strings in a C++ file, without those for the log."""
    source = re.sub(r"^\s*//.*$", "", source, flags=re.M)
    source = re.sub(r"^#include.*$", "", source, flags=re.M)
    source = re.sub(r"""'("|\\.)'""", "", source)  # '"' is no string's beginning.
    for found in LITERALS.finditer(source):
        if "spdlog::" in source[:found.start()].rpartition(";")[2]:
            continue
        text = re.sub(r'"\s*"', "", found[0][1:-1]).replace('\\"', '"').replace("\\n", "\n")
        for piece in re.split(r"\{[^}]*\}|\n", text):
            if piece.strip().count(" ") >= 2:
                yield piece.strip()


def not_provoked(text):
    """What the sources have, and neither the page nor the help nor the manual."""
    helped = "".join(subprocess.run([LOCKFS, *words], stdout=subprocess.PIPE, text=True).stdout
                     for words in (["--help"], ["--print-manual", "urls"],
                                   ["--print-manual", "lockspace"]))
    seen = " ".join((text + helped.replace("\\", "").replace("`", "").replace("*", "")).split())
    lines = []
    for pattern in SOURCES:
        for file in sorted(glob.glob(os.path.join(page.ROOT, pattern))):
            name = os.path.relpath(file, page.ROOT)
            with open(file) as source:
                lines += [f"    {name}: {each}" for each in sentences(source.read())
                          if " ".join(each.split()) not in seen]
    return "\n".join(sorted(set(lines)))


with tempfile.TemporaryDirectory(prefix="lockfs-friendly-") as scratch:
    places[scratch] = "/tmp/scratch"
    places[os.path.dirname(os.path.dirname(LOCKFS))] = "/usr"
    call_me("asker")
    known(os.getpid())
    lock_messages.sections(scratch)
    control_messages.sections(lock_messages.write)
    start_messages.sections(scratch)
    text = HEAD + "\n" + "\n\n".join(each.text() for each in Section.all) + "\n"
text += f"""
## Not provoked

What the sources have besides: it takes what this test cannot do.

{not_provoked(text)}
"""
page.compare("doc/messages.md", text)
