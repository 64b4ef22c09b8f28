/* A message queue descriptor is a descriptor: epoll(7), poll(2), select(2), dup(2), fcntl(2), fork(2), exec(3), close(2). */
#include "check.h"

static char text[16];

static void put(mqd_t queue)
{
    CHECK(mq_send(queue, "x", 1, 1) == 0);
}

static void take(mqd_t queue)
{
    CHECK(mq_receive(queue, text, sizeof text, NULL) == 1);
}

static void watch(int epoll, int operation, int number, unsigned events)
{
    struct epoll_event event = { .events = events, .data.fd = number };
    CHECK(epoll_ctl(epoll, operation, number, &event) == 0);
}

/* How many are ready at once, and whether `number` is among them. */
static int ready(int epoll, int number, int timeout)
{
    struct epoll_event events[8];
    int count = epoll_wait(epoll, events, 8, timeout), found = 0;
    CHECK(count >= 0);
    for (int i = 0; i < count; i++)
        found += events[i].data.fd == number;
    CHECK(number < 0 || found == 1);
    return count;
}

static void test_epoll(void)
{
    mqd_t first = new_queue("/first", O_RDWR, 2), second = new_queue("/second", O_RDWR, 2);
    int ends[2], go[2], epoll = epoll_create1(0);
    char byte = 0;
    CHECK(pipe(ends) == 0 && pipe(go) == 0);
    pid_t child = fork();
    if (child == 0) {
        /* Each when it is told to; the descriptors are the parent's. */
        close(go[1]);
        while (read(go[0], &byte, 1) == 1) {
            if (byte == '1')
                put(first);
            else if (byte == '2')
                put(second);
            else
                CHECK(write(ends[1], "x", 1) == 1);
        }
        _exit(0);
    }
    int all[3] = { first, second, ends[0] };
    for (int i = 0; i < 3; i++)
        watch(epoll, EPOLL_CTL_ADD, all[i], EPOLLIN);
    CHECK(ready(epoll, -1, 0) == 0);
    for (int round = 0; round < 30; round++) {
        int which = round % 3;
        CHECK(write(go[1], &"12p"[which], 1) == 1);
        CHECK(ready(epoll, all[which], -1) == 1);
        if (which < 2)
            take(all[which]);
        else
            CHECK(read(ends[0], &byte, 1) == 1);
        CHECK(ready(epoll, -1, 0) == 0);
    }
    /* All three at once, as often as it is asked: it is the level that counts. */
    put(first);
    put(second);
    CHECK(write(ends[1], "x", 1) == 1);
    for (int i = 0; i < 3; i++)
        CHECK(ready(epoll, all[i], -1) == 3);
    take(first);
    CHECK(ready(epoll, second, -1) == 2);
    /* Writable until it is full, and again. */
    watch(epoll, EPOLL_CTL_DEL, second, 0);
    watch(epoll, EPOLL_CTL_DEL, ends[0], 0);
    watch(epoll, EPOLL_CTL_MOD, first, EPOLLOUT);
    CHECK(ready(epoll, first, -1) == 1);
    put(first);
    CHECK(ready(epoll, first, -1) == 1);
    put(first);
    CHECK(ready(epoll, -1, 0) == 0);
    take(first);
    CHECK(ready(epoll, first, -1) == 1);
    /* Closed by all who have it, it is watched no more. */
    close(go[1]);
    reap(child);
    CHECK(ready(epoll, first, 0) == 1);
    CHECK(mq_close(first) == 0);
    CHECK(ready(epoll, -1, 0) == 0);
    CHECK(mq_unlink("/first") == 0 && mq_unlink("/second") == 0);
    puts("epoll");
}

static int polled(mqd_t queue, int timeout)
{
    struct pollfd wait = { .fd = queue, .events = POLLIN | POLLOUT };
    CHECK(poll(&wait, 1, timeout) >= 0);
    return wait.revents;
}

static int selected(mqd_t queue, int with_mask)
{
    fd_set reads, writes;
    struct timeval at_once = { 0, 0 };
    struct timespec at_once_too = { 0, 0 };
    FD_ZERO(&reads);
    FD_ZERO(&writes);
    FD_SET(queue, &reads);
    FD_SET(queue, &writes);
    CHECK((with_mask ? pselect(queue + 1, &reads, &writes, NULL, &at_once_too, NULL)
                     : select(queue + 1, &reads, &writes, NULL, &at_once)) >= 0);
    return (FD_ISSET(queue, &reads) ? POLLIN : 0) | (FD_ISSET(queue, &writes) ? POLLOUT : 0);
}

static int all_ways(mqd_t queue)
{
    struct pollfd wait = { .fd = queue, .events = POLLIN | POLLOUT };
    struct timespec at_once = { 0, 0 };
    CHECK(ppoll(&wait, 1, &at_once, NULL) >= 0);
    CHECK(wait.revents == polled(queue, 0));
    CHECK(selected(queue, 0) == wait.revents && selected(queue, 1) == wait.revents);
    return wait.revents;
}

static void test_poll(void)
{
    mqd_t queue = new_queue("/queue", O_RDWR, 2);
    for (int round = 0; round < 3; round++) {
        CHECK(all_ways(queue) == POLLOUT);
        put(queue);
        CHECK(all_ways(queue) == (POLLIN | POLLOUT));
        put(queue);
        CHECK(all_ways(queue) == POLLIN);
        take(queue);
        CHECK(all_ways(queue) == (POLLIN | POLLOUT));
        take(queue);
    }
    /* Whoever waits is woken by another process: for reading, and for writing. */
    int go[2];
    char byte;
    CHECK(pipe(go) == 0);
    pid_t child = fork();
    if (child == 0) {
        CHECK(read(go[0], &byte, 1) == 1);
        put(queue);
        CHECK(read(go[0], &byte, 1) == 1);
        take(queue);
        _exit(0);
    }
    struct pollfd wait = { .fd = queue, .events = POLLIN };
    CHECK(write(go[1], "x", 1) == 1);
    CHECK(poll(&wait, 1, -1) == 1 && wait.revents == POLLIN);
    put(queue);
    wait.events = POLLOUT;
    CHECK(poll(&wait, 1, 0) == 0);
    CHECK(write(go[1], "x", 1) == 1);
    CHECK(poll(&wait, 1, -1) == 1 && wait.revents == POLLOUT);
    reap(child);
    /* A negative number is left out, a closed one is told. */
    struct pollfd some[3] = { { .fd = -1, .events = POLLIN }, { .fd = queue, .events = POLLIN }, { .fd = 900, .events = POLLIN } };
    CHECK(poll(some, 3, 0) == 2);
    CHECK(some[0].revents == 0 && some[1].revents == POLLIN && some[2].revents == POLLNVAL);
    CHECK(mq_unlink("/queue") == 0);
    puts("poll");
}

static int flags_of(mqd_t queue)
{
    int flags = fcntl(queue, F_GETFL);
    CHECK(flags != -1);
    return flags & O_NONBLOCK;
}

static void test_dup(void)
{
    mqd_t queue = new_queue("/queue", O_RDWR, 4);
    int others[4] = { dup(queue), fcntl(queue, F_DUPFD, 40), dup2(queue, 50), dup3(queue, 51, O_CLOEXEC) };
    CHECK(others[0] > queue && others[1] == 40 && others[2] == 50 && others[3] == 51);
    CHECK(fcntl(queue, F_GETFD) == FD_CLOEXEC);
    CHECK(fcntl(40, F_GETFD) == 0 && fcntl(51, F_GETFD) == FD_CLOEXEC);
    for (int i = 0; i < 4; i++) {
        put(others[i]);
        take(queue);
    }
    /* The flag is all duplicates', also of those that are polled. */
    for (int round = 0; round < 2; round++) {
        CHECK(fcntl(40, F_SETFL, O_NONBLOCK) == 0);
        CHECK(flags_of(queue) && flags_of(others[0]) && flags_of(50) && flags_of(51));
        FAILS(EAGAIN, mq_receive(queue, text, sizeof text, NULL));
        CHECK(fcntl(51, F_SETFL, 0) == 0);
        CHECK(!flags_of(queue) && !flags_of(others[0]) && !flags_of(40));
        CHECK(polled(40, 0) == POLLOUT);
    }
    for (int i = 0; i < 4; i++)
        CHECK(polled(others[i], 0) == POLLOUT);
    put(50);
    for (int i = 0; i < 4; i++)
        CHECK(polled(others[i], 0) == (POLLIN | POLLOUT));
    /* Of two queues by the same name, each has its own. */
    mqd_t apart = mq_open("/queue", O_RDWR | O_NONBLOCK);
    CHECK(apart != -1 && flags_of(apart) && !flags_of(queue));
    CHECK(mq_close(queue) == 0);
    FAILS(EBADF, mq_close(queue));
    CHECK(close(others[0]) == 0);
    take(40);
    CHECK(mq_close(40) == 0 && mq_close(50) == 0 && close(51) == 0);
    FAILS(EBADF, mq_receive(51, text, sizeof text, NULL));
    FAILS(EAGAIN, mq_receive(apart, text, sizeof text, NULL));
    CHECK(mq_unlink("/queue") == 0);
    puts("dup");
}

static void test_nonblock(void)
{
    struct mq_attr now, new = { .mq_flags = 0 };
    mqd_t queue = new_queue("/queue", O_RDWR | O_NONBLOCK, 1);
    FAILS(EAGAIN, mq_receive(queue, text, sizeof text, NULL));
    put(queue);
    FAILS(EAGAIN, mq_send(queue, "x", 1, 0));
    CHECK(mq_setattr(queue, &new, &now) == 0 && now.mq_flags == O_NONBLOCK && now.mq_curmsgs == 1);
    CHECK(!flags_of(queue));
    CHECK(fcntl(queue, F_SETFL, O_NONBLOCK) == 0);
    CHECK(mq_getattr(queue, &now) == 0 && now.mq_flags == O_NONBLOCK);
    FAILS(EAGAIN, mq_send(queue, "x", 1, 0));
    CHECK(polled(queue, 0) == POLLIN);
    FAILS(EAGAIN, mq_send(queue, "x", 1, 0));
    CHECK(mq_getattr(queue, &now) == 0 && now.mq_flags == O_NONBLOCK);
    CHECK(fcntl(queue, F_SETFL, 0) == 0);
    CHECK(mq_getattr(queue, &now) == 0 && now.mq_flags == 0);
    /* Only the end that it was opened for. */
    mqd_t reader = mq_open("/queue", O_RDONLY), writer = mq_open("/queue", O_WRONLY | O_NONBLOCK);
    CHECK(reader != -1 && writer != -1);
    CHECK((fcntl(reader, F_GETFL) & O_ACCMODE) == O_RDONLY);
    CHECK((fcntl(writer, F_GETFL) & O_ACCMODE) == O_WRONLY);
    FAILS(EBADF, mq_send(reader, "x", 1, 0));
    FAILS(EBADF, mq_receive(writer, text, sizeof text, NULL));
    CHECK(polled(reader, 0) == POLLIN && polled(writer, 0) == POLLIN);
    FAILS(EBADF, mq_send(reader, "x", 1, 0));
    FAILS(EBADF, mq_receive(writer, text, sizeof text, NULL));
    FAILS(EAGAIN, mq_send(writer, "x", 1, 0));
    take(reader);
    CHECK(mq_unlink("/queue") == 0);
    puts("nonblock");
}

static void test_fork(void)
{
    mqd_t queue = new_queue("/queue", O_RDWR, 4), polled_one = new_queue("/polled", O_RDWR, 4);
    CHECK(polled(polled_one, 0) == POLLOUT);
    for (int round = 0; round < 3; round++) {
        pid_t child = fork();
        if (child == 0) {
            CHECK(polled(polled_one, 0) == POLLOUT);
            put(queue);
            CHECK(polled(queue, 0) & POLLIN);
            put(polled_one);
            CHECK(mq_close(queue) == 0 && close(polled_one) == 0);
            _exit(0);
        }
        struct pollfd wait = { .fd = polled_one, .events = POLLIN };
        CHECK(poll(&wait, 1, -1) == 1);
        take(queue);
        take(polled_one);
        reap(child);
        CHECK(polled(queue, 0) == POLLOUT && polled(polled_one, 0) == POLLOUT);
    }
    CHECK(mq_unlink("/queue") == 0 && mq_unlink("/polled") == 0);
    /* Without a name, it is there for as long as it is open. */
    pid_t child = fork();
    if (child == 0) {
        put(queue);
        _exit(0);
    }
    reap(child);
    take(queue);
    puts("fork");
}

/* What the program that was executed finds: `inherited KEPT POLLED CLOSED FRESH`. */
static void test_inherited(void)
{
    mqd_t kept = atoi(arguments[2]), polled_one = atoi(arguments[3]), closed = atoi(arguments[4]);
    mqd_t fresh = atoi(arguments[5]);
    struct mq_attr now;
    FAILS(EBADF, fcntl(closed, F_GETFD));
    /* Waited for before anything else is done with it. */
    int first = epoll_create1(0);
    watch(first, EPOLL_CTL_ADD, fresh, EPOLLIN);
    CHECK(ready(first, -1, 0) == 0);
    CHECK(polled(fresh, 0) == POLLOUT);
    put(fresh);
    CHECK(ready(first, fresh, -1) == 1);
    take(fresh);
    CHECK(ready(first, -1, 0) == 0);
    FAILS(EBADF, mq_getattr(closed, &now));
    CHECK(mq_getattr(kept, &now) == 0 && now.mq_curmsgs == 1 && now.mq_maxmsg == 2);
    CHECK(polled(polled_one, 0) == (POLLIN | POLLOUT));
    take(polled_one);
    CHECK(polled(polled_one, 0) == POLLOUT);
    take(kept);
    int epoll = epoll_create1(0);
    watch(epoll, EPOLL_CTL_ADD, kept, EPOLLIN);
    CHECK(ready(epoll, -1, 0) == 0);
    put(kept);
    CHECK(ready(epoll, kept, -1) == 1);
    CHECK(mq_send(kept, "answer", 6, 1) == 0);
    CHECK(mq_close(kept) == 0);
    FAILS(EBADF, mq_getattr(kept, &now));
}

static void test_exec(void)
{
    mqd_t kept = new_queue("/kept", O_RDWR, 2), polled_one = new_queue("/polled", O_RDWR, 2);
    mqd_t closed = new_queue("/closed", O_RDWR, 2), fresh = new_queue("/fresh", O_RDWR, 2);
    char numbers[4][16];
    CHECK(fcntl(closed, F_GETFD) == FD_CLOEXEC);
    CHECK(fcntl(kept, F_SETFD, 0) == 0 && fcntl(polled_one, F_SETFD, 0) == 0 && fcntl(fresh, F_SETFD, 0) == 0);
    put(kept);
    put(polled_one);
    CHECK(polled(polled_one, 0) == (POLLIN | POLLOUT));
    sprintf(numbers[0], "%d", kept);
    sprintf(numbers[1], "%d", polled_one);
    sprintf(numbers[2], "%d", closed);
    sprintf(numbers[3], "%d", fresh);
    pid_t child = fork();
    if (child == 0) {
        execl(arguments[0], arguments[0], "inherited", numbers[0], numbers[1], numbers[2], numbers[3], NULL);
        _exit(1);
    }
    reap(child);
    struct mq_attr now;
    CHECK(mq_getattr(kept, &now) == 0 && now.mq_curmsgs == 2);
    take(kept);
    CHECK(mq_receive(kept, text, sizeof text, NULL) == 6 && !memcmp(text, "answer", 6));
    CHECK(polled(polled_one, 0) == POLLOUT);
    CHECK(mq_unlink("/kept") == 0 && mq_unlink("/polled") == 0 && mq_unlink("/closed") == 0 && mq_unlink("/fresh") == 0);
    puts("exec");
}

static void test_reuse(void)
{
    struct mq_attr now;
    mqd_t queue = new_queue("/queue", O_RDWR, 2);
    CHECK(queue == 3);
    for (int way = 0; way < 6; way++) {
        int file;
        if (way & 1)
            CHECK(polled(queue, 0) == POLLOUT);
        switch (way / 2) {
        case 0:
            CHECK(close(queue) == 0);
            break;
        case 1:
            CHECK(mq_close(queue) == 0);
            break;
        default:
            CHECK(close_range(queue, ~0U, 0) == 0);
        }
        FAILS(EBADF, mq_getattr(queue, &now));
        FAILS(EBADF, mq_send(queue, "x", 1, 0));
        file = open("file", O_RDWR | O_CREAT | O_TRUNC, 0600);
        CHECK(file == queue);
        FAILS(EBADF, mq_getattr(queue, &now));
        FAILS(EBADF, mq_send(queue, "x", 1, 0));
        CHECK(write(file, "text", 4) == 4);
        CHECK(polled(file, 0) == (POLLIN | POLLOUT));
        /* It closes whatever it is given. */
        CHECK((way == 5 ? mq_close(file) : close(file)) == 0);
        FAILS(EBADF, fcntl(file, F_GETFD));
        queue = mq_open("/queue", O_RDWR);
        CHECK(queue == file);
    }
    /* Another file takes its number. */
    int file = open("file", O_RDWR);
    CHECK(dup2(file, queue) == queue);
    FAILS(EBADF, mq_send(queue, "x", 1, 0));
    CHECK(write(queue, "text", 4) == 4);
    /* And it takes another file's. */
    mqd_t again = mq_open("/queue", O_RDWR);
    CHECK(again == 5 && dup2(again, file) == file);
    put(file);
    take(again);
    /* Another queue by the same number. */
    mqd_t other = new_queue("/other", O_RDWR, 7);
    CHECK(dup2(other, again) == again);
    CHECK(mq_getattr(again, &now) == 0 && now.mq_maxmsg == 7);
    CHECK(mq_getattr(file, &now) == 0 && now.mq_maxmsg == 2);
    CHECK(mq_unlink("/queue") == 0 && mq_unlink("/other") == 0);
    puts("reuse");
}

int main(int argc, char **argv)
{
    static const struct test tests[] = {
        { "epoll", test_epoll }, { "poll", test_poll },           { "dup", test_dup },
        { "fork", test_fork },   { "nonblock", test_nonblock },   { "exec", test_exec },
        { "reuse", test_reuse }, { "inherited", test_inherited }, { NULL, NULL },
    };
    return run_test(argc, argv, tests);
}
