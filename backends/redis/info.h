// SPDX-License-Identifier: MIT
#pragma once
#include <string>
#include <string_view>

namespace lockfs::redis {

/// The value of a line "key:value" of what INFO answers; "" where there is none.
std::string info_value(std::string_view info, std::string_view key);

/// Why a server throws keys away when its memory is full, in words, by what INFO memory answers; ""
/// if it does not. `expiring`: whether the keys in question have a time to live.
std::string eviction(std::string_view info, bool expiring);

}  // namespace lockfs::redis
