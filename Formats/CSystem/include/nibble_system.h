#pragma once
// System calls that Swift's C importer does not show.
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>

#if defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif

// Swaps two names of one directory atomically. 0, or -1 with errno (ENOSYS/EINVAL: not offered here).
static inline int nibble_rename_exchange(int directory, const char *a, const char *b) {
#if defined(__linux__) && defined(SYS_renameat2)
  return (int)syscall(SYS_renameat2, directory, a, directory, b, 2u /* RENAME_EXCHANGE */);
#elif defined(__APPLE__)
  return renameatx_np(directory, a, directory, b, RENAME_SWAP);
#else
  errno = ENOSYS;
  return -1;
#endif
}

// fsync alone leaves data in the drive's cache on macOS.
static inline int nibble_full_sync(int fd) {
#if defined(__APPLE__)
  if (fcntl(fd, F_FULLFSYNC) == 0) return 0;
#endif
#if defined(__linux__)
  return fsync(fd);
#else
  extern int fsync(int);
  return fsync(fd);
#endif
}

// Lets the device begin with a range that is complete, so that the final fsync has less to wait for.
static inline void nibble_start_writing(int fd, long long offset, long long count) {
#if defined(__linux__)
  (void)sync_file_range(fd, offset, count, SYNC_FILE_RANGE_WRITE);
#else
  (void)fd;
  (void)offset;
  (void)count;
#endif
}

// Appends bytes of one file to another inside the kernel, both at their own positions: `*offset` is that of
// the source and is moved on. Bytes copied, or -1 with errno (ENOSYS, EXDEV, EINVAL …: not offered here).
static inline long long nibble_copy_range(int from, long long *offset, int to, unsigned long count) {
#if defined(__linux__)
  return (long long)copy_file_range(from, (off_t *)offset, to, 0, count, 0);
#else
  (void)from;
  (void)offset;
  (void)to;
  (void)count;
  errno = ENOSYS;
  return -1;
#endif
}
