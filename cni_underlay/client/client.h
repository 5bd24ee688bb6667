/* What the parts of the client share: one call, its answer, and the few texts and waits that they all need. */
#ifndef UNDERLAY_CLIENT_H
#define UNDERLAY_CLIENT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/un.h>
#include <time.h>

enum { LIMIT = 8 << 20 }; /* bytes of standard input, of the environment, and of each part of an answer */

struct call {
    const char *command; /* CNI_COMMAND, never empty */
    struct sockaddr_un address;
    double timeout;   /* seconds, for messages */
    int64_t deadline; /* ns of CLOCK_MONOTONIC */
    int netns;        /* -1: none to pass */
    unsigned char *frame;
    size_t length;
    size_t command_at; /* where CNI_COMMAND's value begins in the frame */
};

enum outcome {
    DONE,
    UNREACHABLE,
    TIMED_OUT,
    DROPPED,   /* closed before the first byte of an answer */
    TRUNCATED, /* closed in the middle of one */
    GARBLED,   /* answered by something else than our agent */
};

struct answer {
    unsigned char *text; /* standard output, then standard error */
    uint32_t status, out, err;
    size_t received;
    const char *step; /* the last one that was begun, and the errno it failed with or 0 */
    int error;
};

/* descriptors.c */
int64_t nanoseconds(clockid_t clock);
bool write_all(int descriptor, const void *bytes, size_t length);
int wait_for(int descriptor, short events, int64_t deadline);
int hold_standard_descriptors(void);

/* failure.c */
const char *errno_name(int error);
__attribute__((noreturn, format(printf, 3, 4))) void die(int code, const char *details, const char *format, ...);

/* request.c */
const char *variable(const char *name);
void read_settings(struct call *call);
void build_frame(struct call *call, const char *name);

/* exchange.c */
extern const char MAGIC[4];
enum outcome ask(const struct call *call, struct answer *answer);

/* spool.c */
enum { SPOOL_PATH = sizeof(struct sockaddr_un) + 8 };
void spool_path(const struct call *call, char path[SPOOL_PATH]);
bool spool(const struct call *call, char *path);

#endif
