// SPDX-License-Identifier: MIT
#pragma once
#include <string>

#include "backends/etcd/mirror.h"
#include "etcd.pb.h"

namespace lockfs::etcd {

/// A condition of a transaction: on the revision that made a key, or changed it.
inline wire::Compare& compare(wire::TxnRequest& txn, wire::Compare::CompareTarget target,
                              const std::string& key, wire::Compare::CompareResult result,
                              int64_t revision) {
  wire::Compare& out = *txn.add_compare();
  out.set_target(target);
  out.set_key(key);
  out.set_result(result);
  target == wire::Compare::CREATE ? out.set_create_revision(revision)
                                  : out.set_mod_revision(revision);
  return out;
}

/// All keys that start with `key`.
inline void read_all(wire::RangeRequest& range, const std::string& key) {
  range.set_key(key);
  range.set_range_end(Keys::end_of(key));
}

/// The first keys of a queue: whoever is before one that was just made is among them, or the mirror
/// will tell.
inline void read_first(wire::RangeRequest& range, const std::string& key) {
  read_all(range, key);
  range.set_sort_target(wire::RangeRequest::CREATE);
  range.set_sort_order(wire::RangeRequest::ASCEND);
  constexpr int kFirst = 10;
  range.set_limit(kFirst);
}

}  // namespace lockfs::etcd
