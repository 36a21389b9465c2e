// SPDX-License-Identifier: MIT
#pragma once
#include <CLI/CLI.hpp>
#include <memory>
#include <string>

#include "ctl/control.h"
#include "ctl/events.h"
#include "ctl/lock_list.h"
#include "ctl/ready.h"
#include "ctl/run.h"
#include "ctl/show.h"
#include "ctl/top.h"
#include "ctl/waits_tree.h"

namespace lockfs::ctl {

/// All that can be said on the command line.
struct Arguments {
  std::string mount;  ///< Of --mount; empty: it is found.
  bool version = false;
  ListOptions list;
  ShowOptions show;
  WaitsOptions waits;
  TopOptions top;
  RunOptions run;
  BreakOptions breaks;
  PinOptions pin;
  NumberOptions number;
  EventsOptions events;
  ReadyOptions ready;
};

/// The whole command line, with the words that explain it: for parsing, which fills `arguments`,
/// and for whoever makes manuals and completions from it. `arguments` must outlive it. The command
/// that was chosen is its only parsed subcommand.
std::unique_ptr<CLI::App> make_app(Arguments& arguments);

}  // namespace lockfs::ctl
