/*
 * The plugin's executable: hands one CNI call to the agent of this node and prints what it answers; decides nothing
 * that the agent can decide. The frames are described in cni_underlay/agent/protocol.py.
 *
 *  - A call ends UNDERLAY_TIMEOUT seconds (55) after its start at the latest, whether its caller never closes standard
 *    input or the agent never answers. Only the printing waits as long as the reader does.
 *  - Without an answer a DEL is kept in the spool, and succeeds; STATUS fails with code 50, anything else with code 11.
 */
#include "client.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#ifndef VERSION
#error "VERSION is the package's: build with python -m cni_underlay.client.build"
#endif

static const char VERSION_ANSWER[] =
    "{\"cniVersion\":\"1.1.0\",\"supportedVersions\":"
    "[\"0.1.0\",\"0.2.0\",\"0.3.0\",\"0.3.1\",\"0.4.0\",\"1.0.0\",\"1.1.0\"]}\n";

/* Tells `underlayctl install` and `uninstall` that a file is one of ours. */
static const char MARKER[] __attribute__((used)) = "@(#)cni-underlay client " VERSION;

__attribute__((noreturn)) static void report(const struct call *call, const struct answer *answer, enum outcome outcome)
{
    const char *path = call->address.sun_path;
    int code = strcmp(call->command, "STATUS") ? 11 : 50;
    char details[64];
    snprintf(details, sizeof details, "%s%s%s", answer->step, answer->error ? ": " : "",
             answer->error ? errno_name(answer->error) : "");
    if (outcome == UNREACHABLE)
        die(code, details, "underlayd is not reachable at %s: is it running?", path);
    if (outcome == TIMED_OUT)
        die(code, details, "underlayd at %s did not answer within %g s: see its log", path, call->timeout);
    if (outcome == GARBLED)
        die(code, details, "the answer at %s is not one of underlayd's: are client and agent of one version?", path);
    die(code, details, "underlayd at %s closed the connection before it had answered: see its log", path);
}

/* Takes back an ADD whose result nobody can have read. Five seconds are enough, since the spool stands behind them. */
static void undo(struct call *call)
{
    char path[SPOOL_PATH];
    struct answer ignored;
    memcpy(call->frame + call->command_at, "DEL", 3);
    call->deadline = nanoseconds(CLOCK_MONOTONIC) + INT64_C(5000000000);
    spool_path(call, path);
    if (ask(call, &ignored) != DONE)
        spool(call, path);
}

static int deliver(struct call *call, const struct answer *answer)
{
    bool printed = write_all(STDOUT_FILENO, answer->text, answer->out);
    int error = errno;
    write_all(STDERR_FILENO, answer->text + answer->out, answer->err);
    if (printed)
        return (int)answer->status;
    dprintf(STDERR_FILENO, "cannot write to standard output: %s\n", errno_name(error));
    if (answer->status == 0 && !strcmp(call->command, "ADD"))
        undo(call);
    return EXIT_FAILURE;
}

static int about(const char *name)
{
    dprintf(STDERR_FILENO,
            "CNI plugin %s v" VERSION "\n"
            "CNI protocol versions supported: 0.1.0, 0.2.0, 0.3.0, 0.3.1, 0.4.0, 1.0.0, 1.1.0\n",
            name);
    return EXIT_SUCCESS;
}

int main(int argc, char **argv)
{
    struct call call = {.command = variable("CNI_COMMAND")};
    struct answer answer;
    char path[SPOOL_PATH];
    const char *slash = argc > 0 ? strrchr(argv[0], '/') : NULL;
    const char *name = slash ? slash + 1 : argc > 0 ? argv[0] : "";
    int closed = hold_standard_descriptors();

    signal(SIGPIPE, SIG_IGN); /* EPIPE, and EFBIG beyond RLIMIT_FSIZE, are answered; a signal would end us instead */
    signal(SIGXFSZ, SIG_IGN);
    umask(077); /* the modes of the spool are ours, whatever the runtime's mask is */
    name = *name ? name : "underlay";
    if (!call.command)
        return about(name);
    if (closed & 1 << STDOUT_FILENO) {
        dprintf(STDERR_FILENO, "standard output is closed: nothing was done\n");
        return EXIT_FAILURE;
    }
    if (!strcmp(call.command, "VERSION"))
        return write_all(STDOUT_FILENO, VERSION_ANSWER, strlen(VERSION_ANSWER)) ? EXIT_SUCCESS : EXIT_FAILURE;
    if (closed & 1 << STDIN_FILENO)
        die(5, "read: EBADF", "standard input is closed");
    read_settings(&call);
    build_frame(&call, name);
    enum outcome outcome = ask(&call, &answer);
    if (outcome == DONE)
        return deliver(&call, &answer);
    if (strcmp(call.command, "DEL"))
        report(&call, &answer, outcome);
    spool_path(&call, path);
    if (!spool(&call, path))
        die(11, errno_name(errno), "underlayd at %s has not answered, and the DEL cannot be kept in %s for it",
            call.address.sun_path, path);
    return EXIT_SUCCESS;
}
