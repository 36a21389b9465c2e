// SPDX-License-Identifier: MIT
#pragma once
#include <string>
#include <string_view>

namespace lockfs {

/// A lock's name as a file's name, and back. The bytes are the same, except that `/` is %2F; a `%`
/// that would read as the beginning of %2F or %25 is %25. Each lock has one file name that `ls`
/// shows; for each file name that is not one of those, lock_name(file) says which lock is meant.
std::string file_name(std::string_view lock);
std::string lock_name(std::string_view file);

}  // namespace lockfs
