// SPDX-License-Identifier: MIT
#pragma once
#include <string>
#include <vector>

namespace lockfs::test {

/// Hosts on one network that can be parted: a network namespace for each, and one in which the test
/// itself and its children are from now on. Nothing of it is seen elsewhere; gone when this ends.
class Networks {
 public:
  explicit Networks(size_t hosts);
  ~Networks();
  Networks(const Networks&) = delete;
  Networks& operator=(const Networks&) = delete;

  /// Whether this machine lets us; where LOCKFS_TEST_REQUIRE names netns, it must.
  static bool is_here();

  static std::string address(size_t host) { return "10.77.0." + std::to_string(host + 2); }
  /// The calling process is on that host from now on.
  void enter(size_t host) const;
  /// Nothing goes to it or comes from it any more; or again.
  void part(size_t host, bool parted) const;

 private:
  int before_ = -1;
  std::vector<int> hosts_;
};

}  // namespace lockfs::test
