// SPDX-License-Identifier: MIT
#pragma once
#include <poll.h>

#include <array>
#include <cerrno>
#include <stdexcept>
#include <string>

#include "backends/dlm/libdlm.h"

namespace lockfs::test {

/// A lock as any program takes it by libdlm, without lockfs: one at a time, waiting for each call.
class PlainDlm {
 public:
  /// Opens the DLM's lockspace, which is made if there is none.
  explicit PlainDlm(const std::string& space) : handle_(dlm_open_lockspace(space.c_str())) {
    if (handle_ == nullptr) handle_ = dlm_create_lockspace(space.c_str(), 0600);
    if (handle_ == nullptr) throw std::runtime_error("no lockspace " + space);
    status_.sb_lvbptr = value_.data();
  }
  ~PlainDlm() { dlm_close_lockspace(handle_); }
  PlainDlm(const PlainDlm&) = delete;
  PlainDlm& operator=(const PlainDlm&) = delete;

  /// The status: 0, EAGAIN (`now`, and not at once), EDEADLK.
  int lock(const std::string& name, uint32_t mode, bool now = false) {
    blocked_ = false;
    const uint32_t flags = LKF_VALBLK | (now ? LKF_NOQUEUE : 0);
    const int result =
        dlm_ls_lock(handle_, mode, &status_, flags, name.data(), static_cast<unsigned>(name.size()),
                    0, ended, this, blocks, nullptr);
    return result != 0 ? errno : await();
  }
  int convert(uint32_t mode) {
    blocked_ = false;
    const int result = dlm_ls_lock(handle_, mode, &status_, LKF_VALBLK | LKF_CONVERT, nullptr, 0, 0,
                                   ended, this, blocks, nullptr);
    return result != 0 ? errno : await();
  }
  /// Of what is held in PR or less; others are to be converted to NL before.
  int unlock() {
    const int result = dlm_ls_unlock(handle_, status_.sb_lkid, 0, &status_, this);
    if (result != 0) return errno;
    const int status = await();
    return status == EUNLOCK ? 0 : status;
  }
  /// Until somebody else waits for what is held; false if nobody does for so many milliseconds.
  bool await_blocked(int milliseconds) {
    while (!blocked_) {
      if (!dispatch(milliseconds)) return false;
    }
    return true;
  }
  std::array<char, DLM_LVB_LEN>& value() { return value_; }
  bool value_is_valid() const { return (status_.sb_flags & DLM_SBF_VALNOTVALID) == 0; }

 private:
  static void ended(void* self) { static_cast<PlainDlm*>(self)->done_ = true; }
  static void blocks(void* self) { static_cast<PlainDlm*>(self)->blocked_ = true; }
  bool dispatch(int milliseconds = -1) {
    pollfd ready{dlm_ls_get_fd(handle_), POLLIN, 0};
    if (poll(&ready, 1, milliseconds) != 1) return false;
    dlm_dispatch(ready.fd);
    return true;
  }
  int await() {
    while (!done_) dispatch();
    done_ = false;
    return status_.sb_status;
  }

  dlm_lshandle_t handle_;
  dlm_lksb status_{};
  std::array<char, DLM_LVB_LEN> value_{};
  bool done_ = false;
  bool blocked_ = false;
};

}  // namespace lockfs::test
