/* Records, in one order over all threads, what a process does to the files of one folder. Loaded by LD_PRELOAD.
 *
 * POWER_LOSS_FOLDER   the folder, absolute, without a slash at its end
 * POWER_LOSS_LOG      where the records go, outside of the folder
 *
 * A record is: kind (1 byte), length of the name (2), offset or size (8), length of the data (4), nanoseconds (8), then name
 * and data, little-endian. Kinds: C created, W written, T truncated, S synced, R renamed and L linked (data: the new name), U
 * unlinked, X something the rebuilder does not know. An operation and its record are made under one lock.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static const char *folder;
static size_t folder_length;
static int log_descriptor = -1;

static void hold(void) { pthread_mutex_lock(&lock); }
static void release(void) { int kept = errno; pthread_mutex_unlock(&lock); errno = kept; }

__attribute__((constructor)) static void begin(void) {
    folder = getenv("POWER_LOSS_FOLDER");
    const char *log = getenv("POWER_LOSS_LOG");
    if (!folder || !log) { folder = NULL; return; }
    folder_length = strlen(folder);
    log_descriptor = (int)syscall(SYS_openat, AT_FDCWD, log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    pthread_atfork(hold, release, release);
}

/* The name of a path inside of the folder, "" for the folder itself, NULL for any other. */
static const char *name_of(const char *path) {
    if (!folder || !path || strncmp(path, folder, folder_length)) return NULL;
    if (!path[folder_length]) return path + folder_length;
    return path[folder_length] == '/' ? path + folder_length + 1 : NULL;
}

static const char *name_of_descriptor(int descriptor, char *buffer, size_t size) {
    char link[64];
    if (!folder) return NULL;
    snprintf(link, sizeof link, "/proc/self/fd/%d", descriptor);
    ssize_t length = readlink(link, buffer, size - 1);
    if (length < 0) return NULL;
    buffer[length] = 0;
    return name_of(buffer);
}

static void record(char kind, const char *name, uint64_t offset, const void *data, uint32_t length) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    uint64_t time = (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
    uint16_t name_length = (uint16_t)strlen(name);
    char head[23];
    head[0] = kind;
    memcpy(head + 1, &name_length, 2);
    memcpy(head + 3, &offset, 8);
    memcpy(head + 11, &length, 4);
    memcpy(head + 15, &time, 8);
    struct iovec parts[3] = {{head, sizeof head}, {(void *)name, name_length}, {(void *)data, length}};
    int kept = errno;
    if (syscall(SYS_writev, log_descriptor, parts, 3) != (long)(sizeof head + name_length + length)) abort();
    errno = kept;
}

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

static int open_recorded(int directory, const char *path, int flags, mode_t mode) {
    const char *name = directory == AT_FDCWD ? name_of(path) : NULL;
    if (!name || !(flags & (O_CREAT | O_TRUNC))) return (int)syscall(SYS_openat, directory, path, flags, mode);
    hold();
    int existed = syscall(SYS_faccessat, AT_FDCWD, path, F_OK) == 0;
    int descriptor = (int)syscall(SYS_openat, AT_FDCWD, path, flags, mode);
    if (descriptor >= 0 && !existed) record('C', name, 0, "", 0);
    else if (descriptor >= 0 && (flags & O_TRUNC)) record('T', name, 0, "", 0);
    release();
    return descriptor;
}

#define MODE(flags) mode_t mode = 0; if ((flags) & (O_CREAT | O_TMPFILE)) { va_list rest; va_start(rest, flags); mode = va_arg(rest, mode_t); va_end(rest); }
int open(const char *path, int flags, ...) { MODE(flags) return open_recorded(AT_FDCWD, path, flags, mode); }
int open64(const char *path, int flags, ...) { MODE(flags) return open_recorded(AT_FDCWD, path, flags, mode); }
int openat(int at, const char *path, int flags, ...) { MODE(flags) return open_recorded(at, path, flags, mode); }
int openat64(int at, const char *path, int flags, ...) { MODE(flags) return open_recorded(at, path, flags, mode); }

/* `offset` below zero: at the descriptor's own place, known after the write. */
static void wrote(int descriptor, const char *name, const void *data, ssize_t length, off_t offset) {
    if (length <= 0) return;
    if (offset < 0) offset = lseek(descriptor, 0, SEEK_CUR) - length;
    record('W', name, (uint64_t)offset, data, (uint32_t)length);
}

ssize_t write(int descriptor, const void *data, size_t size) {
    char buffer[4096];
    const char *name = name_of_descriptor(descriptor, buffer, sizeof buffer);
    if (!name) return syscall(SYS_write, descriptor, data, size);
    hold();
    ssize_t length = syscall(SYS_write, descriptor, data, size);
    wrote(descriptor, name, data, length, -1);
    release();
    return length;
}

static ssize_t pwrite_recorded(int descriptor, const void *data, size_t size, off_t offset) {
    char buffer[4096];
    const char *name = name_of_descriptor(descriptor, buffer, sizeof buffer);
    if (!name) return syscall(SYS_pwrite64, descriptor, data, size, offset);
    hold();
    ssize_t length = syscall(SYS_pwrite64, descriptor, data, size, offset);
    wrote(descriptor, name, data, length, offset);
    release();
    return length;
}
ssize_t pwrite(int descriptor, const void *data, size_t size, off_t offset) { return pwrite_recorded(descriptor, data, size, offset); }
ssize_t pwrite64(int descriptor, const void *data, size_t size, off64_t offset) { return pwrite_recorded(descriptor, data, size, offset); }

/* What neither SQLite nor Python does to these files: recorded as unknown, so that a recording with it is refused. */
#define UNKNOWN(descriptor) do { char buffer[4096]; const char *name = name_of_descriptor(descriptor, buffer, sizeof buffer); \
    if (name) { hold(); record('X', name, 0, "", 0); release(); } } while (0)
ssize_t writev(int d, const struct iovec *v, int n) { UNKNOWN(d); return REAL(writev)(d, v, n); }
ssize_t pwritev(int d, const struct iovec *v, int n, off_t o) { UNKNOWN(d); return REAL(pwritev)(d, v, n, o); }
ssize_t pwritev64(int d, const struct iovec *v, int n, off64_t o) { UNKNOWN(d); return REAL(pwritev64)(d, v, n, o); }
int fallocate(int d, int m, off_t o, off_t l) { UNKNOWN(d); return REAL(fallocate)(d, m, o, l); }
int fallocate64(int d, int m, off64_t o, off64_t l) { UNKNOWN(d); return REAL(fallocate64)(d, m, o, l); }
int posix_fallocate(int d, off_t o, off_t l) { UNKNOWN(d); return REAL(posix_fallocate)(d, o, l); }
int posix_fallocate64(int d, off64_t o, off64_t l) { UNKNOWN(d); return REAL(posix_fallocate64)(d, o, l); }

static int sync_recorded(int descriptor, long number) {
    char buffer[4096];
    const char *name = name_of_descriptor(descriptor, buffer, sizeof buffer);
    if (!name) return (int)syscall(number, descriptor);
    hold();
    int answer = (int)syscall(number, descriptor);
    if (answer == 0) record('S', name, 0, "", 0);
    release();
    return answer;
}
int fsync(int descriptor) { return sync_recorded(descriptor, SYS_fsync); }
int fdatasync(int descriptor) { return sync_recorded(descriptor, SYS_fdatasync); }

static int truncate_recorded(int descriptor, off_t size) {
    char buffer[4096];
    const char *name = name_of_descriptor(descriptor, buffer, sizeof buffer);
    if (!name) return (int)syscall(SYS_ftruncate, descriptor, size);
    hold();
    int answer = (int)syscall(SYS_ftruncate, descriptor, size);
    if (answer == 0) record('T', name, (uint64_t)size, "", 0);
    release();
    return answer;
}
int ftruncate(int descriptor, off_t size) { return truncate_recorded(descriptor, size); }
int ftruncate64(int descriptor, off64_t size) { return truncate_recorded(descriptor, size); }

static int unlink_recorded(int at, const char *path, int flags) {
    const char *name = at == AT_FDCWD ? name_of(path) : NULL;
    if (!name) return (int)syscall(SYS_unlinkat, at, path, flags);
    hold();
    int answer = (int)syscall(SYS_unlinkat, at, path, flags);
    if (answer == 0) record('U', name, 0, "", 0);
    release();
    return answer;
}
int unlink(const char *path) { return unlink_recorded(AT_FDCWD, path, 0); }
int unlinkat(int at, const char *path, int flags) { return unlink_recorded(at, path, flags); }

int rename(const char *from, const char *to) {
    const char *old = name_of(from), *new = name_of(to);
    if (!old && !new) return (int)syscall(SYS_renameat, AT_FDCWD, from, AT_FDCWD, to);
    hold();
    int answer = (int)syscall(SYS_renameat, AT_FDCWD, from, AT_FDCWD, to);
    if (answer == 0) {
        if (old && new) record('R', old, 0, new, (uint32_t)strlen(new));
        else record('X', old ? old : new, 0, "", 0);
    }
    release();
    return answer;
}

static int link_recorded(const char *from, const char *to, int flags) {
    const char *old = name_of(from), *new = name_of(to);
    if (!old && !new) return (int)syscall(SYS_linkat, AT_FDCWD, from, AT_FDCWD, to, flags);
    hold();
    int answer = (int)syscall(SYS_linkat, AT_FDCWD, from, AT_FDCWD, to, flags);
    if (answer == 0) {
        if (old && new) record('L', old, 0, new, (uint32_t)strlen(new));
        else record('X', old ? old : new, 0, "", 0);
    }
    release();
    return answer;
}
int link(const char *from, const char *to) { return link_recorded(from, to, 0); }
int linkat(int at, const char *from, int beside, const char *to, int flags) {
    if (at == AT_FDCWD && beside == AT_FDCWD) return link_recorded(from, to, flags);
    return (int)syscall(SYS_linkat, at, from, beside, to, flags);
}
