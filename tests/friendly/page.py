# SPDX-License-Identifier: MIT
"""A page of the repository that a test makes anew: kept as it is, or the test fails with a diff.
LOCKFS_WRITE_PAGES=1 in the environment writes it instead."""

import difflib
import os
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


def skip(part, why):
    """This machine lacks PART: a visible skip, or a failure where LOCKFS_TEST_REQUIRE names it."""
    if part in os.environ.get("LOCKFS_TEST_REQUIRE", "").split():
        sys.exit(f"FAIL: {part} is required, but: {why}")
    print(f"SKIP {part}: {why}")
    sys.exit(77)


def kept(name):
    try:
        with open(os.path.join(ROOT, name)) as file:
            return file.read()
    except FileNotFoundError:
        return ""


def compare(name, text):
    """The page NAME, a path from the root of the repository, is to be TEXT."""
    before = kept(name)
    if before == text:
        print(f"ok: {name} is as it is")
        return
    if os.environ.get("LOCKFS_WRITE_PAGES") == "1":
        with open(os.path.join(ROOT, name), "w") as file:
            file.write(text)
        print(f"written: {name}")
        return
    sys.stdout.writelines(difflib.unified_diff(before.splitlines(True), text.splitlines(True),
                                               f"{name} as kept", f"{name} as it would be"))
    sys.exit(f"FAIL: {name} is another one now: if that is right, LOCKFS_WRITE_PAGES=1 writes it")
