/* Makes the n-th system call on a journal's files go wrong, in the very process that makes it. Loaded with LD_PRELOAD.

   Counted are calls on files whose path begins with FAULTS_PREFIX (journal.db, -wal, -shm, -journal). FAULTS_KIND says which
   calls are counted and what becomes of number FAULTS_AT, and of all later ones with FAULTS_STICKY=1. What was done is
   noted in the file FAULTS_NOTE, one line each. faults_arm() reads the environment anew and begins to count at one. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { WRITES = 1, SYNCS = 2, READS = 4, OPENS = 8, TRUNCATES = 16, UNLINKS = 32 };
enum { NOTHING, FAIL, SHORT, BEFORE, AFTER };

static char prefix[4096], note[4096];
static int classes, action, error_number, at, sticky, count;

static void arm(const char *kind) {
    classes = 0;
    action = FAIL;
    if (!strcmp(kind, "enospc")) { classes = WRITES | TRUNCATES | OPENS; error_number = ENOSPC; }
    else if (!strcmp(kind, "readonly")) { classes = WRITES | TRUNCATES | OPENS; error_number = EROFS; }
    else if (!strcmp(kind, "eio")) { classes = WRITES | TRUNCATES; error_number = EIO; }
    else if (!strcmp(kind, "sync")) { classes = SYNCS; error_number = EIO; }
    else if (!strcmp(kind, "read")) { classes = READS; error_number = EIO; }
    else if (!strcmp(kind, "open")) { classes = OPENS; error_number = EMFILE; }
    else if (!strcmp(kind, "eintr")) { classes = WRITES | READS | OPENS | TRUNCATES; error_number = EINTR; }
    else if (!strcmp(kind, "short")) { classes = WRITES; action = SHORT; }
    else if (!strcmp(kind, "kill-before")) { classes = 63; action = BEFORE; }
    else if (!strcmp(kind, "kill-after")) { classes = 63; action = AFTER; }
}

void faults_arm(void) {
    const char *kind = getenv("FAULTS_KIND"), *where = getenv("FAULTS_PREFIX"), *number = getenv("FAULTS_AT");
    const char *again = getenv("FAULTS_STICKY"), *noted = getenv("FAULTS_NOTE");
    classes = count = 0;
    if (!kind || !where || !number || !noted) return;
    snprintf(prefix, sizeof prefix, "%s", where);
    snprintf(note, sizeof note, "%s", noted);
    at = atoi(number);
    sticky = again && !strcmp(again, "1");
    arm(kind);
}

__attribute__((constructor)) static void begin(void) { faults_arm(); }

static void say(const char *name, const char *path, int number) {
    char line[4600];
    int length = snprintf(line, sizeof line, "%d %s %s\n", number, name, strrchr(path, '/') ? strrchr(path, '/') + 1 : path);
    int fd = syscall(SYS_openat, AT_FDCWD, note, O_WRONLY | O_CREAT | O_APPEND, 0600);
    if (fd >= 0) { syscall(SYS_write, fd, line, length); syscall(SYS_close, fd); }
}

/* What is to become of this call. */
static int turn(int class, const char *name, const char *path) {
    if (!(classes & class) || strncmp(path, prefix, strlen(prefix))) return NOTHING;
    int number = __sync_add_and_fetch(&count, 1);
    if (number != at && !(sticky && number > at)) return NOTHING;
    if (number == at) say(name, path, number);
    if (action == BEFORE) kill(getpid(), SIGKILL);
    if (action == FAIL) errno = error_number;
    return action;
}

static int turn_of(int class, const char *name, int fd) {
    if (!(classes & class)) return NOTHING;
    char link[64], path[4096];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length < 0) return NOTHING;
    path[length] = 0;
    return turn(class, name, path);
}

#define REAL(name) static __typeof__(&name) real; if (!real) real = (__typeof__(&name))dlsym(RTLD_NEXT, #name)
#define ENDED(result) do { int kept = errno; if (what == AFTER) kill(getpid(), SIGKILL); errno = kept; return result; } while (0)
#define PART (what == SHORT && n > 1 ? n / 2 : n)

ssize_t write(int fd, const void *b, size_t n) {
    REAL(write); int what = turn_of(WRITES, "write", fd);
    if (what == FAIL) return -1;
    ssize_t result = real(fd, b, PART); ENDED(result);
}
ssize_t pwrite(int fd, const void *b, size_t n, off_t o) {
    REAL(pwrite); int what = turn_of(WRITES, "pwrite", fd);
    if (what == FAIL) return -1;
    ssize_t result = real(fd, b, PART, o); ENDED(result);
}
ssize_t pwrite64(int fd, const void *b, size_t n, off64_t o) {
    REAL(pwrite64); int what = turn_of(WRITES, "pwrite", fd);
    if (what == FAIL) return -1;
    ssize_t result = real(fd, b, PART, o); ENDED(result);
}
ssize_t read(int fd, void *b, size_t n) {
    REAL(read); int what = turn_of(READS, "read", fd);
    if (what == FAIL) return -1;
    ssize_t result = real(fd, b, n); ENDED(result);
}
ssize_t pread(int fd, void *b, size_t n, off_t o) {
    REAL(pread); int what = turn_of(READS, "pread", fd);
    if (what == FAIL) return -1;
    ssize_t result = real(fd, b, n, o); ENDED(result);
}
ssize_t pread64(int fd, void *b, size_t n, off64_t o) {
    REAL(pread64); int what = turn_of(READS, "pread", fd);
    if (what == FAIL) return -1;
    ssize_t result = real(fd, b, n, o); ENDED(result);
}
int fsync(int fd) {
    REAL(fsync); int what = turn_of(SYNCS, "fsync", fd);
    if (what == FAIL) return -1;
    int result = real(fd); ENDED(result);
}
int fdatasync(int fd) {
    REAL(fdatasync); int what = turn_of(SYNCS, "fdatasync", fd);
    if (what == FAIL) return -1;
    int result = real(fd); ENDED(result);
}
int ftruncate(int fd, off_t o) {
    REAL(ftruncate); int what = turn_of(TRUNCATES, "ftruncate", fd);
    if (what == FAIL) return -1;
    int result = real(fd, o); ENDED(result);
}
int ftruncate64(int fd, off64_t o) {
    REAL(ftruncate64); int what = turn_of(TRUNCATES, "ftruncate", fd);
    if (what == FAIL) return -1;
    int result = real(fd, o); ENDED(result);
}
int unlink(const char *path) {
    REAL(unlink); int what = turn(UNLINKS, "unlink", path);
    int result = real(path); ENDED(result);
}
#define MODE va_list rest; va_start(rest, flags); int mode = flags & O_CREAT ? va_arg(rest, int) : 0; va_end(rest)
/* A full disk stops only an open that makes a file; one that became read-only each that may write. */
#define ALLOWED(path) ((error_number == ENOSPC && !((flags & O_CREAT) && access(path, F_OK))) \
    || (error_number == EROFS && !(flags & (O_WRONLY | O_RDWR | O_CREAT))))
#define OPENING(path) (ALLOWED(path) ? NOTHING : turn(OPENS, "open", path))
int open(const char *path, int flags, ...) {
    MODE; REAL(open); int what = OPENING(path);
    if (what == FAIL) return -1;
    int result = real(path, flags, mode); ENDED(result);
}
int open64(const char *path, int flags, ...) {
    MODE; REAL(open64); int what = OPENING(path);
    if (what == FAIL) return -1;
    int result = real(path, flags, mode); ENDED(result);
}
