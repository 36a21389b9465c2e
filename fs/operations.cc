// SPDX-License-Identifier: MIT
// The table of libfuse's handlers. Each hands its request to LockFs, which answers it.
#include <spdlog/spdlog.h>

#include <cerrno>
#include <exception>

#include "fs/session.h"

namespace lockfs {
namespace {

// No exception may cross libfuse. One that reaches this is a bug or no memory: the request fails.
template <typename Call>
void guarded(fuse_req_t req, Call&& call) {
  try {
    call(static_cast<Session*>(fuse_req_userdata(req))->fs());
  } catch (const std::exception& error) {
    spdlog::error("a request failed: {}", error.what());
    fuse_reply_err(req, EIO);
  }
}

void on_init(void* session, fuse_conn_info* connection) {
  static_cast<Session*>(session)->init(connection);
}
void on_lookup(fuse_req_t req, fuse_ino_t parent, const char* name) {
  guarded(req, [&](LockFs& fs) { fs.lookup(req, parent, name); });
}
void on_forget(fuse_req_t req, fuse_ino_t node, uint64_t /*lookups*/) {
  static_cast<Session*>(fuse_req_userdata(req))->fs().forget(node);
  fuse_reply_none(req);
}
void on_forget_multi(fuse_req_t req, size_t count, fuse_forget_data* forgets) {
  LockFs& fs = static_cast<Session*>(fuse_req_userdata(req))->fs();
  for (size_t i = 0; i < count; ++i) fs.forget(forgets[i].ino);
  fuse_reply_none(req);
}
void on_getattr(fuse_req_t req, fuse_ino_t node, fuse_file_info* /*fi*/) {
  guarded(req, [&](LockFs& fs) { fs.getattr(req, node); });
}
void on_setattr(fuse_req_t req, fuse_ino_t node, struct stat* attr, int to_set,
                fuse_file_info* /*fi*/) {
  guarded(req, [&](LockFs& fs) { fs.setattr(req, node, *attr, to_set); });
}
void on_mkdir(fuse_req_t req, fuse_ino_t parent, const char* name, mode_t mode) {
  guarded(req, [&](LockFs& fs) { fs.mkdir(req, parent, name, mode); });
}
void on_rmdir(fuse_req_t req, fuse_ino_t parent, const char* name) {
  guarded(req, [&](LockFs& fs) { fs.rmdir(req, parent, name); });
}
void on_unlink(fuse_req_t req, fuse_ino_t parent, const char* name) {
  guarded(req, [&](LockFs& fs) { fs.unlink(req, parent, name); });
}
// Locks are no files to be moved, linked or made without opening them.
void on_mknod(fuse_req_t req, fuse_ino_t /*parent*/, const char* /*name*/, mode_t /*mode*/,
              dev_t /*device*/) {
  fuse_reply_err(req, EPERM);
}
void on_symlink(fuse_req_t req, const char* /*to*/, fuse_ino_t /*parent*/, const char* /*name*/) {
  fuse_reply_err(req, EPERM);
}
void on_rename(fuse_req_t req, fuse_ino_t /*parent*/, const char* /*name*/, fuse_ino_t /*to*/,
               const char* /*new_name*/, unsigned /*flags*/) {
  fuse_reply_err(req, EPERM);
}
void on_link(fuse_req_t req, fuse_ino_t /*node*/, fuse_ino_t /*to*/, const char* /*name*/) {
  fuse_reply_err(req, EPERM);
}
void on_create(fuse_req_t req, fuse_ino_t parent, const char* name, mode_t /*mode*/,
               fuse_file_info* fi) {
  guarded(req, [&](LockFs& fs) { fs.create(req, parent, name, fi); });
}
void on_open(fuse_req_t req, fuse_ino_t node, fuse_file_info* fi) {
  guarded(req, [&](LockFs& fs) { fs.open(req, node, fi); });
}
void on_read(fuse_req_t req, fuse_ino_t /*node*/, size_t size, off_t offset, fuse_file_info* fi) {
  guarded(req, [&](LockFs& fs) { fs.read(req, size, offset, fi); });
}
void on_write(fuse_req_t req, fuse_ino_t /*node*/, const char* data, size_t size, off_t /*offset*/,
              fuse_file_info* fi) {
  guarded(req, [&](LockFs& fs) { fs.write(req, {data, size}, fi); });
}
void on_flush(fuse_req_t req, fuse_ino_t /*node*/, fuse_file_info* fi) {
  guarded(req, [&](LockFs& fs) { fs.flush(req, fi); });
}
void on_release(fuse_req_t req, fuse_ino_t /*node*/, fuse_file_info* fi) {
  guarded(req, [&](LockFs& fs) { fs.release(req, fi); });
}
void on_fsync(fuse_req_t req, fuse_ino_t /*node*/, int /*datasync*/, fuse_file_info* /*fi*/) {
  fuse_reply_err(req, 0);
}
void on_opendir(fuse_req_t req, fuse_ino_t node, fuse_file_info* fi) {
  guarded(req, [&](LockFs& fs) { fs.opendir(req, node, fi); });
}
void on_readdir(fuse_req_t req, fuse_ino_t /*node*/, size_t size, off_t offset,
                fuse_file_info* fi) {
  guarded(req, [&](LockFs& fs) { fs.readdir(req, size, offset, fi); });
}
void on_releasedir(fuse_req_t req, fuse_ino_t /*node*/, fuse_file_info* fi) {
  guarded(req, [&](LockFs& fs) { fs.releasedir(req, fi); });
}
void on_setxattr(fuse_req_t req, fuse_ino_t node, const char* name, const char* value, size_t size,
                 int /*flags*/) {
  guarded(req, [&](LockFs& fs) { fs.setxattr(req, node, name, {value, size}); });
}
void on_getxattr(fuse_req_t req, fuse_ino_t node, const char* name, size_t size) {
  guarded(req, [&](LockFs& fs) { fs.getxattr(req, node, name, size); });
}
void on_listxattr(fuse_req_t req, fuse_ino_t node, size_t size) {
  guarded(req, [&](LockFs& fs) { fs.listxattr(req, node, size); });
}
void on_getlk(fuse_req_t req, fuse_ino_t /*node*/, fuse_file_info* fi, struct flock* lock) {
  guarded(req, [&](LockFs& fs) { fs.getlk(req, fi, *lock); });
}
void on_setlk(fuse_req_t req, fuse_ino_t /*node*/, fuse_file_info* fi, struct flock* lock,
              int sleep) {
  guarded(req, [&](LockFs& fs) { fs.setlk(req, fi, *lock, sleep != 0); });
}
void on_flock(fuse_req_t req, fuse_ino_t /*node*/, fuse_file_info* fi, int op) {
  guarded(req, [&](LockFs& fs) { fs.flock(req, fi, op); });
}
void on_poll(fuse_req_t req, fuse_ino_t /*node*/, fuse_file_info* fi, fuse_pollhandle* handle) {
  guarded(req, [&](LockFs& fs) { fs.poll(req, fi, handle); });
}

fuse_lowlevel_ops make_operations() {
  fuse_lowlevel_ops ops{};
  ops.init = on_init;
  ops.lookup = on_lookup;
  ops.forget = on_forget;
  ops.forget_multi = on_forget_multi;
  ops.getattr = on_getattr;
  ops.setattr = on_setattr;
  ops.mkdir = on_mkdir;
  ops.rmdir = on_rmdir;
  ops.unlink = on_unlink;
  ops.mknod = on_mknod;
  ops.symlink = on_symlink;
  ops.rename = on_rename;
  ops.link = on_link;
  ops.create = on_create;
  ops.open = on_open;
  ops.read = on_read;
  ops.write = on_write;
  ops.flush = on_flush;
  ops.release = on_release;
  ops.fsync = on_fsync;
  ops.opendir = on_opendir;
  ops.readdir = on_readdir;
  ops.releasedir = on_releasedir;
  ops.setxattr = on_setxattr;
  ops.getxattr = on_getxattr;
  ops.listxattr = on_listxattr;
  ops.getlk = on_getlk;
  ops.setlk = on_setlk;
  ops.flock = on_flock;
  ops.poll = on_poll;
  return ops;
}

}  // namespace

const fuse_lowlevel_ops& operations() {
  static const fuse_lowlevel_ops table = make_operations();
  return table;
}

}  // namespace lockfs
