// SPDX-License-Identifier: MIT
#pragma once
// libdlm's headers, which need others before them and do not know C++.
// clang-format off
#include <sys/types.h>
#include <stdint.h>
extern "C" {
#include <libdlm.h>
#include <libdlmcontrol.h>
}
// clang-format on
