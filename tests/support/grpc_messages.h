// SPDX-License-Identifier: MIT
#pragma once
#include <cstdint>
#include <map>
#include <string>
#include <string_view>

namespace lockfs::test {

/// What a gRPC server says on one connection, cut into the frames of HTTP/2, so that single
/// messages can be lost on their way as if the server had never sent them.
class GrpcMessages {
 public:
  /// What is to be passed on of `bytes` and of what was kept back before. A message in which `lose`
  /// occurs is not, unless that is empty; `lost` counts those.
  std::string pass(std::string_view bytes, std::string_view lose, int& lost);

 private:
  std::string rest_;                         ///< The beginning of a frame.
  std::map<uint32_t, std::string> lengths_;  ///< By stream: the frame that begins a message.
};

}  // namespace lockfs::test
