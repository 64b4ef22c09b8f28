/* The other end of a POSIX queue, by the man pages alone.
   posix_queue send NAME PRIORITY TEXT | recv NAME | thread NAME | remove NAME */
#include <fcntl.h>
#include <mqueue.h>
#include <semaphore.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static sem_t noticed;

static int fail(const char *what)
{
    perror(what);
    return 1;
}

static void notice(union sigval value)
{
    printf("noticed %d\n", value.sival_int);
    fflush(stdout);
    sem_post(&noticed);
}

int main(int argc, char **argv)
{
    static char text[65536];
    unsigned priority;

    if (argc < 3)
        return 2;
    if (strcmp(argv[1], "remove") == 0)
        return mq_unlink(argv[2]) == -1 ? fail("mq_unlink") : 0;
    mqd_t queue = mq_open(argv[2], O_RDWR | O_CREAT, 0600, NULL);
    if (queue == (mqd_t)-1)
        return fail("mq_open");
    if (argc == 5 && strcmp(argv[1], "send") == 0)
        return mq_send(queue, argv[4], strlen(argv[4]), atoi(argv[3])) == -1 ? fail("mq_send") : 0;
    if (strcmp(argv[1], "recv") == 0) {
        ssize_t len = mq_receive(queue, text, sizeof text, &priority);
        if (len == -1)
            return fail("mq_receive");
        printf("%u %.*s\n", priority, (int)len, text);
        return 0;
    }
    if (strcmp(argv[1], "thread") == 0) {
        struct sigevent event = { .sigev_notify = SIGEV_THREAD, .sigev_notify_function = notice,
                                  .sigev_value.sival_int = 42 };
        sem_init(&noticed, 0, 0);
        if (mq_notify(queue, &event) == -1)
            return fail("mq_notify");
        puts("registered");
        fflush(stdout);
        sem_wait(&noticed);
        return 0;
    }
    return 2;
}
