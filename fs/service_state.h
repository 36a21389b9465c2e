// SPDX-License-Identifier: MIT
#pragma once
#include <string>

namespace lockfs {

/// Tells systemd, where it has started us with Type=notify, how we fare, in the words of
/// sd_notify(3): "READY=1", "STATUS=...". Elsewhere it does nothing.
void tell_systemd(const std::string& state);

/// "RELOADING=1", with the time that systemd wants beside it; "READY=1" ends it.
void tell_systemd_of_reload();

}  // namespace lockfs
