/* Programs that ask the C library's calls for what the man pages promise: they end with 0 if all of it holds. */
#ifndef CHECK_H
#define CHECK_H

#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <mqueue.h>
#include <poll.h>
#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ipc.h>
#include <sys/mman.h>
#include <sys/msg.h>
#include <sys/select.h>
#include <sys/sem.h>
#include <sys/shm.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define CHECK(what)                                                                          \
    do {                                                                                     \
        if (!(what)) {                                                                       \
            fprintf(stderr, "%s:%d: not so: %s (errno %s)\n", __FILE__, __LINE__, #what,     \
                    strerror(errno));                                                        \
            _exit(1);                                                                        \
        }                                                                                    \
    } while (0)

/* A call that must fail with this errno. */
#define FAILS(number, call)                                                                  \
    do {                                                                                     \
        errno = 0;                                                                           \
        CHECK((call) == -1 && errno == (number));                                            \
    } while (0)

struct message {
    long kind;
    char text[64];
};

struct test {
    const char *name;
    void (*run)(void);
};

static __attribute__((unused)) char **arguments;

/* A child must have ended with 0. */
static inline void reap(pid_t child)
{
    int status;
    pid_t reaped;
    do
        reaped = waitpid(child, &status, 0);
    while (reaped == -1 && errno == EINTR);
    CHECK(reaped == child && status == 0);
}

/* A POSIX queue of its own, for so many messages of 16 bytes. */
static inline mqd_t new_queue(const char *name, int flags, long messages)
{
    struct mq_attr limits = { .mq_maxmsg = messages, .mq_msgsize = 16 };
    mqd_t queue = mq_open(name, O_CREAT | O_EXCL | flags, 0600, &limits);
    CHECK(queue != -1);
    return queue;
}

static inline int run_test(int argc, char **argv, const struct test *tests)
{
    arguments = argv;
    for (; tests->name; tests++) {
        if (argc > 1 && !strcmp(argv[1], tests->name)) {
            tests->run();
            return 0;
        }
    }
    fprintf(stderr, "no such test\n");
    return 2;
}

#endif
