// SPDX-License-Identifier: MIT
#include "tests/faults/descriptors.h"

#include <cstdlib>
#include <filesystem>

namespace lockfs::test {

Certificate::Certificate() {
  if (mkdtemp(directory_.data()) == nullptr) throw std::runtime_error("mkdtemp");
  const std::string make =
      "cd " + directory_ +
      " && openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=localhost"
      " -addext subjectAltName=DNS:localhost,IP:127.0.0.1 -keyout key -out cert 2>/dev/null";
  if (system(make.c_str()) != 0) throw std::runtime_error("openssl");
}

Certificate::~Certificate() { std::filesystem::remove_all(directory_); }

}  // namespace lockfs::test
