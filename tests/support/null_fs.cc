// SPDX-License-Identifier: MIT
// The floor: a filesystem that answers what lockfs is asked, with libfuse's stock single-threaded
// loop, and does nothing else. Every name is free, every lock is granted.
// null_fs MOUNTPOINT
#include <cerrno>
#include <cstring>
#include <string>

#include "fs/fuse.h"

namespace {

fuse_ino_t next_node = 16;

struct stat file_attributes(fuse_ino_t node) {
  struct stat attr {};
  attr.st_ino = node;
  attr.st_mode = node == FUSE_ROOT_ID ? S_IFDIR | 0777 : S_IFREG | 0666;
  attr.st_nlink = 1;
  return attr;
}

double timeout(fuse_ino_t node) { return node == FUSE_ROOT_ID ? 3600 : 0.01; }

void on_init(void* /*data*/, fuse_conn_info* connection) {
  connection->max_background = 65535;
  connection->want |= FUSE_CAP_ATOMIC_O_TRUNC & connection->capable;
}
void on_lookup(fuse_req_t req, fuse_ino_t /*parent*/, const char* name) {
  if (std::strncmp(name, "there", 5) != 0) return void(fuse_reply_err(req, ENOENT));
  fuse_entry_param entry{};
  entry.ino = next_node++;
  entry.attr = file_attributes(entry.ino);
  entry.attr_timeout = timeout(entry.ino);
  fuse_reply_entry(req, &entry);
}
void on_getattr(fuse_req_t req, fuse_ino_t node, fuse_file_info* /*fi*/) {
  const struct stat attr = file_attributes(node);
  fuse_reply_attr(req, &attr, timeout(node));
}
void on_create(fuse_req_t req, fuse_ino_t /*parent*/, const char* /*name*/, mode_t /*mode*/,
               fuse_file_info* fi) {
  fuse_entry_param entry{};
  entry.ino = next_node++;
  entry.attr = file_attributes(entry.ino);
  entry.attr_timeout = timeout(entry.ino);
  fi->direct_io = 1;
  fi->noflush = (fi->flags & O_EXCL) != 0 ? 1 : 0;
  fuse_reply_create(req, &entry, fi);
}
void on_open(fuse_req_t req, fuse_ino_t /*node*/, fuse_file_info* fi) {
  fi->direct_io = 1;
  fuse_reply_open(req, fi);
}
void on_write(fuse_req_t req, fuse_ino_t /*node*/, const char* /*data*/, size_t size,
              off_t /*offset*/, fuse_file_info* /*fi*/) {
  fuse_reply_write(req, size);
}
void on_close(fuse_req_t req, fuse_ino_t /*node*/, fuse_file_info* /*fi*/) {
  fuse_reply_err(req, 0);
}
void on_flock(fuse_req_t req, fuse_ino_t /*node*/, fuse_file_info* /*fi*/, int /*op*/) {
  fuse_reply_err(req, 0);
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 2) return 2;
  fuse_lowlevel_ops ops{};
  ops.init = on_init;
  ops.lookup = on_lookup;
  ops.getattr = on_getattr;
  ops.create = on_create;
  ops.open = on_open;
  ops.write = on_write;
  ops.flush = on_close;
  ops.release = on_close;
  ops.flock = on_flock;
  std::string name = "null_fs";
  std::string dash_o = "-o";
  std::string list = "fsname=null,subtype=null,default_permissions";
  char* words[] = {name.data(), dash_o.data(), list.data(), nullptr};
  fuse_args args = FUSE_ARGS_INIT(3, words);
  fuse_session* session = fuse_session_new(&args, &ops, sizeof ops, nullptr);
  if (session == nullptr || fuse_set_signal_handlers(session) != 0) return 1;
  if (fuse_session_mount(session, argv[1]) != 0) return 1;
  const int status = fuse_session_loop(session);
  fuse_session_unmount(session);
  fuse_session_destroy(session);
  return status >= 0 ? 0 : 1;
}
