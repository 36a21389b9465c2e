// SPDX-License-Identifier: MIT
#pragma once
#include <sys/stat.h>

#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "core/event_loop.h"
#include "core/lock_table.h"
#include "fs/command.h"
#include "fs/event_stream.h"
#include "fs/fuse.h"
#include "fs/handle.h"
#include "fs/log_limit.h"
#include "fs/long_texts.h"
#include "fs/name_list.h"
#include "fs/node_table.h"
#include "fs/options.h"
#include "fs/picture.h"
#include "fs/pidfd.h"
#include "system/spare_descriptor.h"

namespace lockfs {

/// Why a command was not done, for programs and for people.
struct Refusal {
  LockErrc why = LockErrc::kInvalid;
  std::string words;
};

/// Who reads, with the groups it is in besides its own.
struct Reader {
  Client client;
  std::vector<gid_t> groups;
};

/// The filesystem: turns requests of the kernel into verbs of the lock table and its answers into
/// replies. Each handler answers its request once, at once or, for one that waits, when the table
/// says so; effects come before replies. On the loop thread only.
class LockFs final : public LockObserver {
 public:
  /// `backends` maps a lockspace's name to its backend; "" is the one for all others.
  using Backends = std::map<std::string, LockBackend*>;
  LockFs(EventLoop& loop, const Options& options, Backends backends);

  /// Calls `ready` once the lockspaces that are there from the start are joined, or cannot be: with
  /// what became of `default`.
  void when_joined(std::function<void(LockErrc)> ready);
  /// The options have other limits now; they hold for what is asked from now on.
  void take_limits();
  /// The mount is gone: ends what still waits for an answer. Nothing comes after it.
  void end();

  // Names: lock_fs_names.cc
  void lookup(fuse_req_t req, NodeId parent, const char* name);
  void forget(NodeId node) { nodes_.forget(node); }
  void getattr(fuse_req_t req, NodeId node);
  void setattr(fuse_req_t req, NodeId node, const struct stat& attr, int to_set);
  void mkdir(fuse_req_t req, NodeId parent, const char* name, mode_t mode);
  void rmdir(fuse_req_t req, NodeId parent, const char* name);
  void unlink(fuse_req_t req, NodeId parent, const char* name);
  void opendir(fuse_req_t req, NodeId node, fuse_file_info* fi);
  void readdir(fuse_req_t req, size_t size, off_t offset, const fuse_file_info* fi);
  void releasedir(fuse_req_t req, const fuse_file_info* fi);
  void getxattr(fuse_req_t req, NodeId node, const char* name, size_t size);
  void setxattr(fuse_req_t req, NodeId node, const char* name, std::string_view value);
  void listxattr(fuse_req_t req, NodeId node, size_t size);

  // Locks: lock_fs_locks.cc
  void create(fuse_req_t req, NodeId parent, const char* name, fuse_file_info* fi);
  void open(fuse_req_t req, NodeId node, fuse_file_info* fi);
  void write(fuse_req_t req, std::string_view data, const fuse_file_info* fi);
  void flock(fuse_req_t req, const fuse_file_info* fi, int op);
  void setlk(fuse_req_t req, const fuse_file_info* fi, const struct flock& lock, bool sleep);
  void getlk(fuse_req_t req, const fuse_file_info* fi, struct flock lock);
  void flush(fuse_req_t req, const fuse_file_info* fi);
  void release(fuse_req_t req, const fuse_file_info* fi);
  /// The kernel wants this request ended. Only noted; handle_interrupts() acts, outside libfuse.
  void interrupt(fuse_req_t req) { interrupted_.push_back(req); }
  void handle_interrupts();

  // Reading: lock_fs_reads.cc
  void read(fuse_req_t req, size_t size, off_t offset, const fuse_file_info* fi);
  void poll(fuse_req_t req, const fuse_file_info* fi, fuse_pollhandle* handle);

  void answered(OwnerId owner, LockErrc result) override;
  void lost(OwnerId owner, std::string_view why) override;
  void changed(const Lock& lock) override;

 private:
  /// A request of the kernel that waits for its lock.
  struct Parked {
    enum class Kind { kCreate, kWrite, kLock };
    fuse_req_t req = nullptr;
    Kind kind = Kind::kLock;
    HandleId handle = HandleId::kNone;
    Request request;  ///< Kept only while it stands behind another one of the same owner.
    Client client;
    size_t size = 0;  ///< Of the write.
    int onlost = 0;
    std::shared_ptr<const Pidfd> onlost_to = nullptr;
  };
  /// A read of `.lockfs/events`, which waits for the next one.
  struct EventReader {
    fuse_req_t req = nullptr;
    HandleId handle = HandleId::kNone;
    size_t size = 0;
    uint64_t offset = 0;
    bool nonblocking = false;
  };
  /// A thread that an event named, and what it was then.
  struct SeenThread {
    TimePoint when;
    ProcessInfo info;
  };
  /// Owns POSIX or OFD locks: which is which the kernel does not say; both fall as they should
  /// if FLUSH of the same lock_owner, and RELEASE of the handle it locked through, end it.
  struct PosixOwner {
    OwnerId owner = OwnerId::kNone;
    HandleId through = HandleId::kNone;
  };
  using PosixKey = std::pair<const Lock*, uint64_t>;
  using TextDone = LongTexts::Done;
  struct Directory {
    NodeId node = 0;
    uid_t uid = 0;   ///< Of its opener.
    NameList names;  ///< From the first read to the end; else none.
    bool unread = false;
    size_t end = 0;  ///< How many it had.
  };

  /// A command of .ctl: what it answers, or why not.
  using Answer = tl::expected<std::string, Refusal>;
  using Reply = std::function<void(Answer)>;  ///< Called once, perhaps at once.
  using Arguments = std::vector<std::string>;
  struct ControlVerb {
    std::string_view name;
    std::string_view usage;
    size_t least;  ///< Arguments it takes.
    size_t most;
    void (LockFs::*run)(Lockspace& space, const Client& client, const Arguments& arguments,
                        const Reply& reply);
  };

  // lock_fs.cc
  /// Fills in the node's attributes and for how long the kernel may remember it.
  void describe(NodeId node, fuse_entry_param& entry);
  bool attributes(NodeId node, struct stat& attr);
  struct stat lock_attributes(const Lockspace& space, std::string_view name, const Lock* lock);
  off_t stream_size(const LockNode& node) const;
  bool may_write(fuse_req_t req, const Lockspace& space, const Lock* lock);
  bool may_read(const Reader& reader, const Lock& lock) const;
  bool may_read(const Reader& reader, const Lockspace& space) const;
  bool owns(const Client& client, const Lockspace& space) const;
  LockBackend& backend_of(const std::string& lockspace);
  Handle* handle(const fuse_file_info* fi) { return handles_.find(HandleId{fi->fh}); }
  Lockspace* space_of(const Handle& handle);
  const Owner* own_of(const Handle& handle) const;
  /// Who holds it, but for `self`.
  std::string holders_in_words(const Lock& lock, const Owner* self = nullptr);
  /// Which of its limits keeps a client from more.
  std::string limit_in_words(const Client& client) const;
  /// For whoever was refused: the lock, its holder and what to try next.
  std::string explain(LockErrc result, const Owner& self, Share want, const Client& client);

  // lock_fs_names.cc
  std::string xattr_value(const LockNode& node, std::string_view name, const Client& client,
                          const RemoteLock& remote, int& error);
  const Owner* owner_of(const LockNode& node, const Lock* lock, const Client& client);
  void set_lockspace(fuse_req_t req, Lockspace& space, const struct stat& attr, int to_set);
  void set_lock(const LockNode& node, const Client& client, const struct stat& attr, int to_set,
                const std::function<void(int error)>& done);
  int refuse_lockspace(const char* name, const Client& client);
  void reply_here(fuse_req_t req, uint32_t space_id, const std::string& name);
  void reply_lookup(fuse_req_t req, uint32_t space_id, const std::string& name,
                    const Painter::Elsewhere& elsewhere);
  void unlink_lock(fuse_req_t req, uint32_t space, const std::string& name,
                   const RemoteLock& remote);

  // lock_fs_directories.cc
  void list_names(uint64_t id, const std::function<void(int error)>& done);
  NameList names_in(NodeId node, const std::vector<RemoteLock>& remote);
  static void add_locks(const Lockspace& space, const std::vector<RemoteLock>& remote,
                        NameList& names);
  int keep_names(Directory& dir, NameList names);
  void drop_names(Directory& dir);
  void drop_directory(uint64_t id);
  void reply_names(fuse_req_t req, uint64_t id, size_t size, size_t from);
  /// For what a user has begun to read: false when that is too much.
  bool take_bytes(uid_t uid, size_t bytes);
  void give_bytes(uid_t uid, size_t bytes);

  // lock_fs_locks.cc
  bool take_open(const Client& client);
  std::pair<HandleId, Handle*> add_handle(fuse_req_t req, NodeId node, fuse_file_info* fi);
  void drop_handle(HandleId id);
  void submit(OwnerId owner, Parked parked);
  bool start_next(OwnerId owner);
  std::optional<LockErrc> ask(OwnerId owner, Request request, Client client);
  void finish(OwnerId owner, Parked parked, LockErrc result);
  bool reply(const Parked& parked, LockErrc result);
  void run(fuse_req_t req, Handle& handle, HandleId id, Command command, size_t size,
           bool nonblocking);
  void refuse_lock(fuse_req_t req, Handle& handle);
  void end_owner(OwnerId owner);
  void tell_interrupt_of(fuse_req_t req);
  OwnerId posix_owner(Handle& handle, HandleId id, uint64_t lock_owner, const Client& client,
                      bool make);
  OwnerId flock_owner(const Handle& handle, uint64_t lock_owner, const Client& client);

  // lock_fs_losses.cc
  bool find_onlost(Handle& handle, Parked& parked);
  void signal_holder(const Handle& handle);

  // lock_fs_reads.cc
  void note_holder(OwnerId owner);
  void capture_processes();
  void make_text(HandleId id, fuse_req_t req, const TextDone& done);
  bool keep_text(Handle& handle, const std::string& text, uint64_t at);
  void free_text(Handle& handle);
  void drop_text(Handle& handle);
  void reply_text(fuse_req_t req, HandleId id, size_t size, uint64_t at);
  void notify(Handle& handle);
  void look_for_pollers();

  // events_file.cc
  static bool is_events(NodeId node);
  ProcessInfo requester(const Happening& happening);
  void add_request(const Happening& happening, nlohmann::ordered_json& out);
  std::string event_line(uint64_t number, const Happening& happening);
  void read_events(const EventReader& reader);
  void poll_events(fuse_req_t req, HandleId id, fuse_pollhandle* handle);
  void note_event();
  bool interrupt_reader(fuse_req_t req);

  // info_files.cc
  void info_text(NodeId node, fuse_req_t req, const TextDone& done);
  std::string config_text() const;
  std::string traits_text() const;

  // lists.cc
  class LockText;
  class WaitText;
  std::unique_ptr<LongText> lock_text(const Reader& reader);
  std::unique_ptr<LongText> wait_text(const Reader& reader);

  // control_file.cc
  void control_write(fuse_req_t req, HandleId id, std::string_view data);
  void control(Lockspace& space, const Client& client, std::string_view text, const Reply& reply);
  static const std::vector<ControlVerb>& control_verbs();
  void look_through(Lockspace& space, const Reply& reply,
                    const std::function<void(Lockspace&, const std::vector<RemoteLock>&)>& then);
  void control_allocate(Lockspace& space, const Client& client, const Arguments& arguments,
                        const Reply& reply);
  void control_free(Lockspace& space, const Client& client, const Arguments& arguments,
                    const Reply& reply);
  void control_free_all(Lockspace& space, const Client& client, const Arguments& arguments,
                        const Reply& reply);
  void control_pin(Lockspace& space, const Client& client, const Arguments& arguments,
                   const Reply& reply);
  void control_unpin(Lockspace& space, const Client& client, const Arguments& arguments,
                     const Reply& reply);
  void control_break(Lockspace& space, const Client& client, const Arguments& arguments,
                     const Reply& reply);
  void control_capacity(Lockspace& space, const Client& client, const Arguments& arguments,
                        const Reply& reply);
  void control_leave(Lockspace& space, const Client& client, const Arguments& arguments,
                     const Reply& reply);
  void control_stats(Lockspace& space, const Client& client, const Arguments& arguments,
                     const Reply& reply);
  void allocate(uint32_t space_id, const std::unordered_set<std::string>& elsewhere,
                const Client& client, const Reply& reply);
  void unpin_own(Lockspace& space, const std::string& name, const Client& client,
                 const Reply& reply);
  Answer pinned(LockErrc result, const Client& client, const std::string& answer);

  EventLoop& loop_;
  const Options& options_;
  Backends backends_;
  ProcProcesses processes_;
  LockTable table_;
  Painter painter_;
  LogLimit log_limit_;
  Pidfds pidfds_;
  SpareDescriptor spare_;  ///< To look whether a signal may be sent.
  EventStream events_;
  std::vector<EventReader> event_readers_;
  std::vector<HandleId> event_pollers_;
  bool events_due_ = false;
  size_t event_opens_ = 0;  ///< Descriptors of the stream.
  std::unordered_map<pid_t, SeenThread> event_threads_;
  NodeTable nodes_;
  SlotMap<HandleId, Handle> handles_;
  SlotMap<uint64_t, Directory> directories_;
  std::unordered_map<uid_t, size_t> kept_bytes_;  ///< Of texts and lists that are being read.
  std::unordered_map<OwnerId, std::deque<Parked>> parked_;
  std::unordered_map<fuse_req_t, OwnerId> parked_requests_;
  std::unordered_map<OwnerId, LockErrc> early_;  ///< Answers that came before ask() was done.
  std::map<PosixKey, PosixOwner> posix_;
  std::unordered_map<const Lock*, std::vector<HandleId>> pollers_;
  std::vector<fuse_req_t> interrupted_;
  std::vector<OwnerId> new_holders_;  ///< Whose processes are not looked up yet.
  size_t joining_ = 0;                ///< Lockspaces of the start that are not joined yet.
  LockErrc joined_ = LockErrc::kOk;
  std::function<void(LockErrc)> when_joined_;
  TimerId capture_timer_ = TimerId::kNone;
  TimerId poll_timer_ = TimerId::kNone;
  LongTexts long_texts_;  ///< locks.json and waits.
};

/// Seconds for which the kernel may remember a node's attributes. Directories change only through
/// it. A lock's bits do too; its time may be that late on an open descriptor, and the check of
/// permissions that follows each open needs no request of its own.
double attribute_timeout(NodeId node);

/// Who sent a request.
Client client_of(fuse_req_t req);
/// The same with its groups, for which /proc is read: while the request is not answered.
Reader reader_of(fuse_req_t req);

inline constexpr std::string_view kInfoDirName = ".lockfs";
inline constexpr std::string_view kControlName = ".ctl";
inline constexpr std::string_view kEventsName = "events";
/// The names of the files in .lockfs, in the order of their node ids.
const std::vector<std::string>& info_files();

}  // namespace lockfs
