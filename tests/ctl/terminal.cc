// SPDX-License-Identifier: MIT
#include "tests/ctl/terminal.h"

#include <fcntl.h>
#include <poll.h>
#include <pty.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdlib>

namespace lockfs::test {
namespace {

winsize size_of(int rows, int columns) {
  return {static_cast<unsigned short>(rows), static_cast<unsigned short>(columns), 0, 0};
}

// A VT52, as far as curses uses one: little enough to be read here.
class Vt52 {
 public:
  Vt52(int rows, int columns)
      : lines_(size_t(rows), std::string(size_t(columns), ' ')), columns_(size_t(columns)) {}

  void take(const std::string& text) {
    for (size_t i = 0; i < text.size(); ++i) {
      if (text[i] != '\x1b') {
        plain(text[i]);
      } else if (++i < text.size()) {
        if (text[i] == 'Y' && i + 2 < text.size()) {
          row_ = size_t(text[i + 1] - ' ');
          column_ = size_t(text[i + 2] - ' ');
          i += 2;
        } else {
          escape(text[i]);
        }
      }
    }
  }
  const std::vector<std::string>& lines() const { return lines_; }

 private:
  void plain(char c) {
    if (c == '\r') column_ = 0;
    if (c == '\b' && column_ > 0) --column_;
    if (c == '\t') column_ = (column_ / 8 + 1) * 8;
    if (c == '\n') down();
    if (static_cast<unsigned char>(c) < 0x20) return;
    if (row_ < lines_.size() && column_ < columns_) lines_[row_][column_] = c;
    ++column_;
  }
  void down() {
    if (row_ + 1 < lines_.size()) {
      ++row_;
    } else {
      lines_.erase(lines_.begin());
      lines_.emplace_back(columns_, ' ');
    }
  }
  void escape(char c) {
    if (c == 'H') row_ = column_ = 0;
    if (c == 'A' && row_ > 0) --row_;
    if (c == 'B' && row_ + 1 < lines_.size()) ++row_;
    if (c == 'C') ++column_;
    if (c == 'D' && column_ > 0) --column_;
    if ((c == 'J' || c == 'K') && row_ < lines_.size()) {
      std::fill(lines_[row_].begin() + long(std::min(column_, columns_)), lines_[row_].end(), ' ');
      for (size_t i = row_ + 1; c == 'J' && i < lines_.size(); ++i) lines_[i].assign(columns_, ' ');
    }
    if (c == 'I') {
      if (row_ > 0) {
        --row_;
      } else {
        lines_.pop_back();
        lines_.insert(lines_.begin(), std::string(columns_, ' '));
      }
    }
  }

  std::vector<std::string> lines_;
  const size_t columns_;
  size_t row_ = 0;
  size_t column_ = 0;
};

}  // namespace

Terminal::Terminal(const Words& words, std::map<std::string, std::string> environment, int rows,
                   int columns)
    : rows_(rows), columns_(columns) {
  const winsize size = size_of(rows, columns);
  pid_ = forkpty(&master_, nullptr, nullptr, &size);
  if (pid_ == 0) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    for (const auto& [key, value] : environment) setenv(key.c_str(), value.c_str(), 1);
    std::vector<char*> argv;
    for (const std::string& word : words) argv.push_back(const_cast<char*>(word.c_str()));
    argv.push_back(nullptr);
    execvp(argv[0], argv.data());
    _exit(127);
  }
  fcntl(master_, F_SETFL, O_NONBLOCK);
  fcntl(master_, F_SETFD, FD_CLOEXEC);
}

Terminal::~Terminal() {
  kill(-pid_, SIGKILL);
  if (!reaped_) waitpid(pid_, nullptr, 0);
  if (master_ >= 0) close(master_);
}

void Terminal::press(const std::string& keys) const {
  [[maybe_unused]] const ssize_t n = write(master_, keys.data(), keys.size());
}

void Terminal::resize(int rows, int columns) {
  written();
  rows_ = rows;
  columns_ = columns;
  const winsize size = size_of(rows, columns);
  written_.clear();  // What was there is for a screen of another size.
  ioctl(master_, TIOCSWINSZ, &size);
}

void Terminal::signal(int number) const { kill(pid_, number); }

void Terminal::hang_up() {
  close(master_);
  master_ = -1;
}

const std::string& Terminal::written() {
  std::array<char, 4096> piece{};
  ssize_t n = 0;
  while ((n = read(master_, piece.data(), piece.size())) > 0) {
    written_.append(piece.data(), size_t(n));
  }
  return written_;
}

std::vector<std::string> Terminal::screen() {
  Vt52 vt52(rows_, columns_);
  vt52.take(written());
  std::vector<std::string> lines = vt52.lines();
  for (std::string& line : lines) line.erase(line.find_last_not_of(' ') + 1);
  return lines;
}

std::string Terminal::line_with(const std::string& words) {
  for (const std::string& line : screen()) {
    if (line.find(words) != std::string::npos) return line;
  }
  return {};
}

bool Terminal::eventually_shows(const std::string& words) {
  return eventually([&] { return !line_with(words).empty(); });
}

bool Terminal::eventually_writes(const std::string& words) {
  return eventually([&] { return written().find(words) != std::string::npos; });
}

termios Terminal::modes() const {
  termios modes{};
  tcgetattr(master_, &modes);
  return modes;
}

int Terminal::wait() {
  int status = 0;
  eventually([&] {
    written();
    reaped_ = waitpid(pid_, &status, WNOHANG) == pid_;
    return reaped_;
  });
  written();
  if (!reaped_) return -1;
  return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

}  // namespace lockfs::test
