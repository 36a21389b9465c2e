// SPDX-License-Identifier: MIT
#pragma once
#include <memory>
#include <string>
#include <string_view>
#include <tl/expected.hpp>

#include "core/lock_backend.h"

namespace lockfs {

/// Makes the backend of a URL such as "memory:"; else says in words what is wrong with it.
tl::expected<std::unique_ptr<LockBackend>, std::string> make_backend(std::string_view url);

}  // namespace lockfs
