/*
 * The spool: a DEL that nobody answered becomes a file in spool/ beside the socket, which holds its frame, for the
 * agent to replay. The file appears whole or not at all, and under its name only once it is on the disk.
 */
#include "client.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

void spool_path(const struct call *call, char path[SPOOL_PATH])
{
    const char *slash = strrchr(call->address.sun_path, '/');
    int parent = slash ? (int)(slash + 1 - call->address.sun_path) : 0;
    sprintf(path, "%.*sspool", parent, call->address.sun_path);
}

/*
 * Opens the spool, made with its parents where it is missing. It holds environments and configurations, and what lies
 * in it is carried out as a request: it must be ours, and nobody else may write to it.
 */
static int open_spool(char *path)
{
    struct stat status;
    for (char *slash = strchr(path + 1, '/'); slash; slash = strchr(slash + 1, '/')) {
        *slash = '\0';
        int made = mkdir(path, 0700);
        *slash = '/';
        if (made < 0 && errno != EEXIST)
            return -1;
    }
    if (mkdir(path, 0700) < 0 && errno != EEXIST)
        return -1;
    int directory = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (directory >= 0 && fstat(directory, &status) == 0 && status.st_uid == geteuid() && !(status.st_mode & 022))
        return directory;
    if (directory >= 0) {
        close(directory);
        errno = EPERM;
    }
    return -1;
}

/* Keeps the request on disk for the agent's next look into the spool; false, with errno, when it could not. */
bool spool(const struct call *call, char *path)
{
    char name[64], temporary[64];
    long long at = nanoseconds(CLOCK_REALTIME);
    snprintf(name, sizeof name, "%020lld-%d.del", at, (int)getpid());
    snprintf(temporary, sizeof temporary, ".%020lld-%d.tmp", at, (int)getpid());
    int directory = open_spool(path);
    if (directory < 0)
        return false;
    int file = openat(directory, temporary, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (file < 0)
        return false;
    if (write_all(file, call->frame, call->length) && fsync(file) == 0 &&
        renameat(directory, temporary, directory, name) == 0)
        return fsync(directory) == 0 || errno == EINVAL; /* EINVAL: a file system without it, fsync(2) */
    int error = errno;
    unlinkat(directory, temporary, 0);
    errno = error;
    return false;
}
