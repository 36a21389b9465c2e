// SPDX-License-Identifier: MIT
#include "tests/support/grpc_messages.h"

namespace lockfs::test {
namespace {

constexpr size_t kFrameHeader = 9;
constexpr size_t kMessageHeader = 5;
constexpr char kData = 0;

uint32_t number(std::string_view bytes) {
  uint32_t out = 0;
  for (const char byte : bytes) out = out << 8U | static_cast<unsigned char>(byte);
  return out;
}

// Go's servers send what begins a message, its length, as a frame of its own.
bool begins_message(std::string_view data) {
  return data.size() == kMessageHeader && data[0] == 0 && number(data.substr(1)) != 0;
}

}  // namespace

std::string GrpcMessages::pass(std::string_view bytes, std::string_view lose, int& lost) {
  rest_ += bytes;
  std::string out;
  while (rest_.size() >= kFrameHeader) {
    const size_t size = kFrameHeader + number(std::string_view(rest_).substr(0, 3));
    if (rest_.size() < size) break;
    const std::string frame = rest_.substr(0, size);
    rest_.erase(0, size);
    const uint32_t stream = number(std::string_view(frame).substr(5, 4));
    const std::string_view data = std::string_view(frame).substr(kFrameHeader);
    std::string& length = lengths_[stream];
    const bool is_data = frame[3] == kData;
    if (is_data && !lose.empty() && data.find(lose) != std::string_view::npos) {
      ++lost;
      length.clear();
      continue;
    }
    out += length;
    length.clear();
    is_data&& begins_message(data) ? length = frame : out += frame;
  }
  return out;
}

}  // namespace lockfs::test
