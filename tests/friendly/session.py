# SPDX-License-Identifier: MIT
"""doc/session.md is what its commands say today."""

import os
import subprocess

import page

if os.geteuid() != 0:
    page.skip("root", "umount is for root")
recorded = subprocess.run([page.ROOT + "/scripts/record", page.ROOT + "/doc/session.md", "-"],
                          stdout=subprocess.PIPE, text=True, check=True, timeout=100)
page.compare("doc/session.md", recorded.stdout)
