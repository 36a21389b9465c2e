// SPDX-License-Identifier: MIT
#include "ctl/top.h"

#include <fmt/format.h>
#include <ncurses.h>
#include <poll.h>
#include <strings.h>
#include <sys/ioctl.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <csignal>
#include <optional>

#include "ctl/failure.h"
#include "ctl/picture.h"
#include "ctl/question.h"
#include "ctl/top_rows.h"
#include "ctl/words.h"
#include "system/open_file.h"

namespace lockfs::ctl {
namespace {

using Clock = std::chrono::steady_clock;
using std::chrono::duration_cast;
using std::chrono::milliseconds;

// A mount that has not answered by then is said to hang.
constexpr auto kSlow = std::chrono::seconds(3);
constexpr int kFirstRow = 2;  // Below the summary and the headings.

// The terminal, as curses has it; as it was before when this ends.
class Screen {
 public:
  Screen() {
    screen_ = isatty(STDIN_FILENO) == 1 && isatty(STDOUT_FILENO) == 1
                  ? newterm(nullptr, stdout, stdin)
                  : nullptr;
    if (screen_ == nullptr) {
      throw Failure(ExitCode::kUsage,
                    "top needs a terminal, and TERM to say which; `lockctl list` needs none");
    }
    set_term(screen_);
    cbreak();
    noecho();
    nonl();
    keypad(stdscr, TRUE);
    nodelay(stdscr, TRUE);
    set_escdelay(25);
    curs_set(0);
  }
  ~Screen() {
    endwin();
    delscreen(screen_);
  }
  Screen(const Screen&) = delete;
  Screen& operator=(const Screen&) = delete;

  static void fit_to_window() {
    winsize size{};
    if (ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) != 0 || size.ws_row == 0) return;
    resizeterm(size.ws_row, size.ws_col);
    clearok(stdscr, TRUE);
  }

 private:
  SCREEN* screen_;
};

class Top {
 public:
  Top(const MountPoint& mount, const TopOptions& options)
      : mount_(mount), options_(options), column_(column_named(options.sort)) {}

  int run(int signals) {
    for (;;) {
      if (!paused_ && Clock::now() >= next_) begin_look();
      draw();
      std::array<pollfd, 3> fds = {pollfd{STDIN_FILENO, POLLIN, 0}, pollfd{signals, POLLIN, 0},
                                   pollfd{look_ ? look_->fd() : -1, POLLIN, 0}};
      const int ready = poll(fds.data(), fds.size(), until_next());
      if (ready > 0 && fds[1].revents != 0) {
        if (const int status = take_signal(signals)) return status;
      }
      if (ready > 0 && fds[0].revents != 0 && !take_keys(fds[0].revents)) return 0;
      if (look_) take_look();
    }
  }

 private:
  static size_t column_named(const std::string& name) {
    const auto& columns = top_columns();
    const auto found = std::find_if(columns.begin(), columns.end(), [&](const TopColumn& column) {
      return strcasecmp(column.heading, name.c_str()) == 0;
    });
    return found == columns.end() ? kContended : static_cast<size_t>(found - columns.begin());
  }

  int until_next() const {
    if (paused_) return look_ ? 1000 : -1;
    const auto left = duration_cast<milliseconds>(next_ - Clock::now()).count();
    return static_cast<int>(std::clamp<int64_t>(left, 0, 60000)) + 1;
  }

  // One at a time.
  void begin_look() {
    const std::chrono::duration<double> delay(options_.delay);
    next_ = Clock::now() + duration_cast<Clock::duration>(delay);
    if (look_) return;
    begun_ = Clock::now();
    look_.emplace([this] {
      if (!options_.lockspace.empty()) need_lockspace(mount_, "top", options_.lockspace);
      return read_info(mount_, "locks.json");
    });
  }

  void take_look() {
    const auto text = look_->answer();
    if (!text) return;
    look_.reset();
    if (paused_) return;
    std::vector<Picture> locks = to_pictures(*text);
    std::erase_if(locks, [&](const Picture& lock) {
      return !options_.lockspace.empty() && lock.lock.lockspace != as_told(options_.lockspace);
    });
    const auto now = Clock::now();
    rows_ = model_.look(locks, std::chrono::duration<double>(now - looked_).count());
    looked_ = now;
    sort_rows(rows_, column_, reverse_);
  }

  // 0, or what to exit with.
  static int take_signal(int signals) {
    signalfd_siginfo info{};
    if (read(signals, &info, sizeof info) != sizeof info) return 0;
    if (info.ssi_signo != SIGWINCH) return 128 + static_cast<int>(info.ssi_signo);
    Screen::fit_to_window();
    return 0;
  }

  // Whether to go on.
  bool take_keys(short events) {
    bool any = false;
    for (int key = getch(); key != ERR; key = getch()) {
      any = true;
      if (key == 'q' || key == 'Q') return false;
      take_key(key);
    }
    return any || (events & (POLLHUP | POLLERR)) == 0;  // The terminal is gone.
  }

  void take_key(int key) {
    help_ = key == '?' && !help_;
    const size_t last = top_columns().size() - 1;
    const auto page = static_cast<size_t>(std::max(1, LINES - kFirstRow));
    switch (key) {
      case KEY_LEFT: sort_by(column_ == 0 ? last : column_ - 1); break;
      case KEY_RIGHT: sort_by(column_ == last ? 0 : column_ + 1); break;
      case KEY_DOWN: ++first_; break;
      case KEY_UP: first_ -= std::min<size_t>(first_, 1); break;
      case KEY_NPAGE: first_ += page; break;
      case KEY_PPAGE: first_ -= std::min(first_, page); break;
      case 'r':
        reverse_ = !reverse_;
        sort_rows(rows_, column_, reverse_);
        break;
      case 'p':
        paused_ = !paused_;
        next_ = Clock::now();
        break;
      default:
        for (size_t i = 0; i <= last; ++i) {
          if (top_columns()[i].key == key) sort_by(i);
        }
    }
  }

  void sort_by(size_t column) {
    column_ = column;
    reverse_ = false;
    sort_rows(rows_, column_, reverse_);
  }

  std::string summary() const {
    const auto held = std::count_if(rows_.begin(), rows_.end(),
                                    [](const TopRow& row) { return row.mode != "free"; });
    size_t waiters = 0;
    for (const TopRow& row : rows_) waiters += row.waiters;
    std::string out;  // What must be seen stands where nothing is cut off.
    if (look_ && Clock::now() - begun_ > kSlow) out += "THE MOUNT DOES NOT ANSWER  ";
    if (paused_) out += "PAUSED  ";
    return out + fmt::format("lockctl top  {}  {} held, {} waiting  by {}{}  ? help",
                             printable(mount_.path), held, waiters, top_columns()[column_].heading,
                             reverse_ ? " (reversed)" : "");
  }

  void draw() {
    const auto width = static_cast<size_t>(std::max(1, COLS));
    erase();
    mvaddstr(0, 0, cut(summary(), width).c_str());
    if (help_) {
      draw_help(width);
    } else {
      attron(A_REVERSE);
      mvaddstr(1, 0, top_headings(width).c_str());
      attroff(A_REVERSE);
      first_ = std::min(first_, rows_.empty() ? 0 : rows_.size() - 1);
      for (int y = kFirstRow; y < LINES; ++y) {
        const size_t i = first_ + static_cast<size_t>(y - kFirstRow);
        if (i >= rows_.size()) break;
        if (rows_[i].waiters != 0) attron(A_BOLD);
        mvaddstr(y, 0, top_line(rows_[i], width).c_str());
        attroff(A_BOLD);
      }
    }
    refresh();  // Only what has changed goes to the terminal.
  }

  static void draw_help(size_t width) {
    std::vector<std::string> lines = {
        "q          end",
        "p          pause, and go on",
        "r          the other way round",
        "up, down   and the page keys move the list",
        "left, right  sort by the next column; or by its letter:",
    };
    for (const TopColumn& column : top_columns()) {
      lines.push_back(fmt::format("  {}  {}", column.key, column.heading));
    }
    for (size_t i = 0; i < lines.size(); ++i) {
      mvaddstr(kFirstRow + static_cast<int>(i), 0, cut(lines[i], width).c_str());
    }
  }

  const MountPoint& mount_;
  const TopOptions& options_;
  std::optional<Question> look_;  ///< In a process of its own: while it hangs, keys still work.
  Clock::time_point begun_;       ///< When it was asked.
  TopRows model_;
  std::vector<TopRow> rows_;
  size_t column_;
  size_t first_ = 0;  ///< The row at the top.
  bool reverse_ = false;
  bool paused_ = false;
  bool help_ = false;
  Clock::time_point next_;
  Clock::time_point looked_ = Clock::now();
};

}  // namespace

int show_top(const MountPoint& mount, const TopOptions& options) {
  sigset_t signals;
  sigemptyset(&signals);
  for (const int signal : {SIGTERM, SIGINT, SIGHUP, SIGQUIT, SIGWINCH}) sigaddset(&signals, signal);
  sigprocmask(SIG_BLOCK, &signals, nullptr);  // Before curses has its own.
  const OpenFile fd(signalfd(-1, &signals, SFD_CLOEXEC));
  std::signal(SIGCHLD, SIG_DFL);
  Top top(mount, options);
  const Screen screen;
  return top.run(fd.get());
}

}  // namespace lockfs::ctl
