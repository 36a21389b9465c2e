// SPDX-License-Identifier: MIT
// A program of the DLM's own kind, to meet lockfs on the same resources:
//   plain_dlm SPACE NAME MODE         waits for the lock, says "granted VALUE", holds it until its
//                                     standard input ends; a line of input is stored as the value
//   plain_dlm SPACE NAME MODE try     the same, or exits with 1 if it cannot be had at once
#include "tests/dlm/plain_dlm.h"

#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <iostream>
#include <string>

#include "core/mode.h"

int main(int argc, char** argv) {
  using namespace lockfs;
  const auto mode = argc >= 4 ? parse_mode(argv[3]) : std::nullopt;
  if (!mode) {
    std::fprintf(stderr, "usage: plain_dlm SPACE NAME MODE [try]\n");
    return 2;
  }
  test::PlainDlm dlm(argv[1]);
  const int status = dlm.lock(argv[2], static_cast<uint32_t>(*mode), argc > 4);
  if (status == EAGAIN) return 1;
  if (status != 0) {
    std::fprintf(stderr, "status %d\n", status);
    return 3;
  }
  std::printf("granted %.*s%s\n", DLM_LVB_LEN, dlm.value().data(),
              dlm.value_is_valid() ? "" : " (invalid)");
  std::fflush(stdout);
  for (std::string line; std::getline(std::cin, line);) {
    dlm.value().fill(0);
    std::copy_n(line.begin(), std::min(line.size(), dlm.value().size()), dlm.value().begin());
  }
  return dlm.convert(LKM_NLMODE) == 0 && dlm.unlock() == 0 ? 0 : 3;
}
