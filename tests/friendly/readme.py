# SPDX-License-Identifier: MIT
"""The README shows the files of doc/snippets as they are."""

import os
import re
import sys
import textwrap

import page

SHOWN = re.compile(r"`(doc/snippets/[\w.]+)`[^\n]*\n\n((?:    [^\n]*\n|\n)+)")

shown = {file: textwrap.dedent(block).strip("\n") + "\n"
         for file, block in SHOWN.findall(page.kept("README.md"))}
there = {"doc/snippets/" + file for file in os.listdir(page.ROOT + "/doc/snippets")}
for file in sorted(there | set(shown)):
    if shown.get(file) != page.kept(file):
        sys.exit(f"FAIL: the README shows {file} as\n{shown.get(file)}\nit is\n{page.kept(file)}")
    print(f"ok: {file}")
