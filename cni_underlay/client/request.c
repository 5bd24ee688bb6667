/* What is asked: the settings of the client, and the frame of the call. */
#include "client.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { HEADER = 20 };

/* The variable's value, NULL when it is unset or empty: the specification's libraries take both for the same. */
const char *variable(const char *name)
{
    const char *value = getenv(name);
    return value && *value ? value : NULL;
}

void read_settings(struct call *call)
{
    const char *path = variable("UNDERLAY_SOCKET"), *timeout = variable("UNDERLAY_TIMEOUT");
    int64_t start = nanoseconds(CLOCK_MONOTONIC);
    char *end = "";
    path = path ? path : "/run/cni-underlay/agent.sock";
    call->timeout = timeout ? strtod(timeout, &end) : 55;
    if (*end || !(call->timeout > 0 && call->timeout <= 86400)) /* NaN is not > 0 */
        die(4, timeout, "UNDERLAY_TIMEOUT must be a number of seconds, more than 0 and at most 86400");
    call->deadline = start + (int64_t)(call->timeout * 1e9);
    call->address.sun_family = AF_UNIX;
    if (strlen(path) >= sizeof call->address.sun_path)
        die(4, path, "UNDERLAY_SOCKET is too long: a socket's path has at most %zu bytes",
            sizeof call->address.sun_path - 1);
    strcpy(call->address.sun_path, path);
}

static void put32(unsigned char *at, uint32_t value)
{
    for (int i = 0; i < 4; i++)
        at[i] = (unsigned char)(value >> (24 - 8 * i));
}

/*
 * Reads standard input to its end. What exceeds the limit is left unread, since input may have no end; a runtime in Go
 * ignores the EPIPE that it gets for it (os/exec, skipStdinCopyError).
 */
static size_t read_body(const struct call *call, unsigned char *into)
{
    size_t length = 0;
    /* The writing end of a pipe never becomes readable: do not wait for it. */
    if ((fcntl(STDIN_FILENO, F_GETFL) & O_ACCMODE) == O_WRONLY)
        die(5, "read: EBADF", "standard input cannot be read: it is open for writing only");
    while (length <= LIMIT) {
        if (!wait_for(STDIN_FILENO, POLLIN, call->deadline))
            die(5, "", "standard input was not closed within %g s", call->timeout);
        ssize_t got = read(STDIN_FILENO, into + length, LIMIT + 1 - length);
        if (got == 0)
            return length;
        if (got > 0)
            length += (size_t)got;
        else if (errno != EINTR && errno != EAGAIN)
            die(5, errno_name(errno), "standard input cannot be read");
    }
    die(6, "", "standard input is longer than the limit of %d bytes (8 MiB)", LIMIT);
}

/* These two are written by us alone: client and agent mean the same call, whatever the environment repeats. */
static bool is_forwarded(const char *entry)
{
    const char *equals = strchr(entry, '=');
    return equals && equals != entry && strncmp(entry, "argv0=", 6) && strncmp(entry, "CNI_COMMAND=", 12);
}

/* The whole environment goes along: a delegated IPAM plugin is entitled to it (specification, section 4). */
void build_frame(struct call *call, const char *name)
{
    size_t block = strlen("argv0=") + strlen(name) + 1 + strlen("CNI_COMMAND=") + strlen(call->command) + 1;
    for (char **entry = environ; *entry; entry++)
        if (is_forwarded(*entry))
            block += strlen(*entry) + 1;
    if (block > LIMIT)
        die(4, "", "the environment is longer than the limit of %d bytes (8 MiB)", LIMIT);
    call->frame = malloc(HEADER + block + LIMIT + 1); /* only pages that are written to become memory */
    if (!call->frame)
        die(11, "malloc: ENOMEM", "out of memory");
    unsigned char *at = call->frame + HEADER;
    at += sprintf((char *)at, "argv0=%s", name) + 1;
    call->command_at = (size_t)(at - call->frame) + strlen("CNI_COMMAND=");
    at += sprintf((char *)at, "CNI_COMMAND=%s", call->command) + 1;
    for (char **entry = environ; *entry; entry++)
        if (is_forwarded(*entry))
            at = mempcpy(at, *entry, strlen(*entry) + 1);

    const char *netns = variable("CNI_NETNS");
    /* O_NONBLOCK: the path may be a FIFO that nobody writes to. What it is, the agent finds out. */
    call->netns = netns ? open(netns, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY) : -1;
    int error = netns && call->netns < 0 ? errno : 0;
    size_t body = read_body(call, at);
    memcpy(call->frame, MAGIC, sizeof MAGIC);
    put32(call->frame + 4, 1);
    put32(call->frame + 8, (uint32_t)error);
    put32(call->frame + 12, (uint32_t)block);
    put32(call->frame + 16, (uint32_t)body);
    call->length = HEADER + block + body;
}
