// SPDX-License-Identifier: MIT
#pragma once
// The one version of libfuse's low-level API that lockfs is written to (Debian 12: 3.14.0).
#define FUSE_USE_VERSION FUSE_MAKE_VERSION(3, 14)
#include <fuse_lowlevel.h>
