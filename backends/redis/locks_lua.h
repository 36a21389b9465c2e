// SPDX-License-Identifier: MIT
#pragma once
#include <string_view>

namespace lockfs::redis {

/// The text of locks.lua.
extern const std::string_view kLocksLua;

}  // namespace lockfs::redis
