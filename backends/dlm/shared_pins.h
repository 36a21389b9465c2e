// SPDX-License-Identifier: MIT
#pragma once
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "backends/dlm/group.h"
#include "backends/dlm/words.h"

namespace lockfs::dlm {

/// The pins of a lockspace, the same with every mount that has it: each hears the same messages in
/// the same order, and who has just come gets the pins from one who was there before. They last as
/// long as any mount has the lockspace. Pure: it is told what was heard, and says what to send.
class SharedPins {
 public:
  /// False until we have them; before that nothing may be sent to change them.
  bool known() const { return known_; }
  const std::map<std::string, Pin>& all() const { return pins_; }
  std::optional<Pin> of(const std::string& name) const;

  /// A message of kind kPin or kUnpin: what comes of it, for the member who sent it.
  LockErrc change(const Message& message);
  /// A message of kind kPins.
  void take(Member self, Member from, const Message& message);
  /// A change of members. Who must be sent say_all(), by us.
  std::vector<Member> members(Member self, std::vector<Member> all,
                              const std::vector<Member>& joined);
  /// All pins for `to`, in messages of bearable size.
  std::vector<Message> say_all(Member to) const;

 private:
  void apply(const Message& message);

  bool known_ = false;
  std::map<std::string, Pin> pins_;
  std::map<std::string, Pin> incoming_;  ///< What came for us of kPins, until its end.
  std::vector<Message> heard_;           ///< Changes since we came, until we know what they change.
  std::vector<Member> elders_;           ///< Who was here before us, until we know.
  std::vector<Member> newcomers_;        ///< Who is yet to be sent the pins.
};

}  // namespace lockfs::dlm
