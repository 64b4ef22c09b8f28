/* Signals: notices of queues, calls that a handler interrupts or not, and the one call that a handler may make. */
#include "check.h"

static volatile sig_atomic_t ticks, code, sender, value;

static void note(int signal, siginfo_t *info, void *context)
{
    (void)signal;
    (void)context;
    ticks++;
    code = info->si_code;
    sender = info->si_pid;
    value = info->si_value.sival_int;
}

static void handle(int signal, void (*handler)(int, siginfo_t *, void *), int flags)
{
    struct sigaction action = { .sa_sigaction = handler, .sa_flags = SA_SIGINFO | flags };
    CHECK(sigaction(signal, &action, NULL) == 0);
}

static void test_notice_signal(void)
{
    struct sigevent event = { .sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGUSR1, .sigev_value.sival_int = 77 };
    char text[16];
    mqd_t queue = new_queue("/queue", O_RDWR, 4);
    handle(SIGUSR1, note, 0);
    for (int round = 1; round <= 3; round++) {
        CHECK(mq_notify(queue, &event) == 0);
        FAILS(EBUSY, mq_notify(queue, &event));
        pid_t child = fork();
        if (child == 0) {
            /* One process at a time; and the child of who is registered is not. */
            FAILS(EBUSY, mq_notify(queue, &event));
            CHECK(mq_notify(queue, NULL) == 0);
            CHECK(mq_send(queue, "x", 1, 0) == 0 && mq_send(queue, "x", 1, 0) == 0);
            _exit(0);
        }
        reap(child);
        CHECK(ticks == round && code == SI_MESGQ && sender == child && value == 77);
        /* Once, and for an empty queue only. */
        CHECK(mq_notify(queue, &event) == 0);
        CHECK(mq_send(queue, "x", 1, 0) == 0 && ticks == round);
        CHECK(mq_notify(queue, NULL) == 0);
        for (int i = 0; i < 3; i++)
            CHECK(mq_receive(queue, text, 16, NULL) == 1);
        CHECK(mq_send(queue, "x", 1, 0) == 0 && ticks == round);
        CHECK(mq_receive(queue, text, 16, NULL) == 1);
    }
    /* To close it ends it. */
    CHECK(mq_notify(queue, &event) == 0 && mq_close(queue) == 0);
    queue = mq_open("/queue", O_RDWR);
    CHECK(mq_send(queue, "x", 1, 0) == 0 && ticks == 3);
    CHECK(mq_unlink("/queue") == 0);
    puts("notice_signal");
}

static mqd_t noticed_queue;
static sem_t noticed;
static pthread_t main_thread;
static int rounds_left = 5;

static void in_a_thread(union sigval given)
{
    char text[16];
    sigset_t mask;
    CHECK(given.sival_ptr == &noticed && !pthread_equal(pthread_self(), main_thread));
    CHECK(pthread_sigmask(SIG_SETMASK, NULL, &mask) == 0);
    if (--rounds_left > 0) {
        struct sigevent again = { .sigev_notify = SIGEV_THREAD, .sigev_notify_function = in_a_thread,
                                  .sigev_value.sival_ptr = &noticed };
        CHECK(mq_notify(noticed_queue, &again) == 0);
    }
    CHECK(mq_receive(noticed_queue, text, 16, NULL) == 1);
    sem_post(&noticed);
}

static void test_notice_thread(void)
{
    struct sigevent event = { .sigev_notify = SIGEV_THREAD, .sigev_notify_function = in_a_thread,
                              .sigev_value.sival_ptr = &noticed };
    int rounds = rounds_left;
    main_thread = pthread_self();
    CHECK(sem_init(&noticed, 0, 0) == 0);
    noticed_queue = new_queue("/queue", O_RDWR, 4);
    handle(SIGUSR1, note, SA_RESTART);
    CHECK(mq_notify(noticed_queue, &event) == 0);
    for (int i = 0; i < rounds; i++) {
        CHECK(mq_send(noticed_queue, "x", 1, 0) == 0);
        while (sem_wait(&noticed) == -1)
            CHECK(errno == EINTR);
        /* A helper takes none of the program's signals. */
        kill(getpid(), SIGUSR1);
        CHECK(ticks == i + 1);
    }
    CHECK(mq_unlink("/queue") == 0);
    puts("notice_thread");
}

static int wake[2];

static void tick(int signal)
{
    (void)signal;
    ticks++;
    if (ticks >= 3)
        (void)!write(wake[1], "x", 1);
}

/* The calls that can block, each with nothing to do. */
enum { RECEIVE, SEND, OPERATE, OPERATE_TIMED, QUEUE_RECEIVE, QUEUE_SEND, QUEUE_TIMED, WAIT, WAIT_TIMED, CALLS };
static const char *const names[CALLS] = { "msgrcv", "msgsnd", "semop", "semtimedop", "mq_receive", "mq_send",
                                          "mq_timedreceive", "sem_wait", "sem_timedwait" };
static int queue_id, full_id, set_id;
static mqd_t empty, full;
static sem_t *semaphore;

static int call(int which)
{
    struct message message = { 1, "" };
    struct sembuf down = { 0, -1, 0 };
    struct timespec hour = { 3600, 0 }, until;
    char text[16];
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += 3600;
    switch (which) {
    case RECEIVE:
        return msgrcv(queue_id, &message, 64, 0, 0) >= 0 ? 0 : -1;
    case SEND:
        return msgsnd(full_id, &message, 10, 0);
    case OPERATE:
        return semop(set_id, &down, 1);
    case OPERATE_TIMED:
        return semtimedop(set_id, &down, 1, &hour);
    case QUEUE_RECEIVE:
        return mq_receive(empty, text, 16, NULL) >= 0 ? 0 : -1;
    case QUEUE_SEND:
        return mq_send(full, "x", 1, 0);
    case QUEUE_TIMED:
        return mq_timedreceive(empty, text, 16, NULL, &until) >= 0 ? 0 : -1;
    case WAIT:
        return sem_wait(semaphore);
    default:
        return sem_timedwait(semaphore, &until);
    }
}

/* Has the call succeed. */
static void satisfy(int which)
{
    struct message message = { 1, "" };
    struct sembuf up = { 0, 1, 0 };
    char text[16];
    switch (which) {
    case RECEIVE:
        CHECK(msgsnd(queue_id, &message, 1, 0) == 0);
        break;
    case SEND:
        CHECK(msgrcv(full_id, &message, 64, 0, 0) == 10);
        break;
    case OPERATE:
    case OPERATE_TIMED:
        CHECK(semop(set_id, &up, 1) == 0);
        break;
    case QUEUE_RECEIVE:
    case QUEUE_TIMED:
        CHECK(mq_send(empty, "x", 1, 0) == 0);
        break;
    case QUEUE_SEND:
        CHECK(mq_receive(full, text, 16, NULL) == 1);
        break;
    default:
        CHECK(sem_post(semaphore) == 0);
    }
}

/* A timer's signal comes again and again, so one of them comes while the call is blocked. Only after the third does
   another process have the call succeed. */
static void interrupted(int which, int flags)
{
    struct sigaction action = { .sa_handler = tick, .sa_flags = flags };
    struct itimerval every = { { 0, 20000 }, { 0, 20000 } }, never = { { 0, 0 }, { 0, 0 } };
    char byte;
    CHECK(pipe(wake) == 0);
    pid_t child = fork();
    if (child == 0) {
        CHECK(close(wake[1]) == 0);
        if (read(wake[0], &byte, 1) == 1)
            satisfy(which);
        _exit(0);
    }
    ticks = 0;
    CHECK(sigaction(SIGALRM, &action, NULL) == 0);
    CHECK(setitimer(ITIMER_REAL, &every, NULL) == 0);
    errno = 0;
    int outcome = call(which), failed = errno;
    CHECK(setitimer(ITIMER_REAL, &never, NULL) == 0);
    CHECK(close(wake[1]) == 0);
    reap(child);
    CHECK(close(wake[0]) == 0);
    /* A call that fails does so at once: before the third tick, so that nobody has satisfied it, if the host lets it. What
       was put in for one that had failed by then is taken out again. */
    if (outcome == 0)
        CHECK(ticks >= 3);
    else if (ticks >= 3)
        CHECK(call(which) == 0);
    printf("%s %s: %s\n", names[which], flags ? "SA_RESTART" : "", outcome == 0 ? "restarted" : strerror(failed));
}

static void test_interrupt(void)
{
    struct message message = { 1, "" };
    struct msqid_ds status;
    queue_id = msgget(IPC_PRIVATE, 0600);
    full_id = msgget(IPC_PRIVATE, 0600);
    CHECK(msgctl(full_id, IPC_STAT, &status) == 0);
    status.msg_qbytes = 10;
    CHECK(msgctl(full_id, IPC_SET, &status) == 0 && msgsnd(full_id, &message, 10, 0) == 0);
    set_id = semget(IPC_PRIVATE, 1, 0600);
    empty = new_queue("/empty", O_RDWR, 1);
    full = new_queue("/full", O_RDWR, 1);
    CHECK(mq_send(full, "x", 1, 0) == 0);
    semaphore = sem_open("/s", O_CREAT | O_EXCL, 0600, 0);
    CHECK(semaphore != SEM_FAILED);
    /* The last one, which the drop-in restarts and the kernel does not, is asked for apart. */
    int is_last = arguments[2] && !strcmp(arguments[2], "last");
    for (int which = is_last ? WAIT_TIMED : 0; which < CALLS; which++) {
        if (!is_last)
            interrupted(which, 0);
        if (is_last || which != WAIT_TIMED)
            interrupted(which, SA_RESTART);
    }
    CHECK(msgctl(queue_id, IPC_RMID, NULL) == 0 && msgctl(full_id, IPC_RMID, NULL) == 0);
    CHECK(semctl(set_id, 0, IPC_RMID) == 0 && mq_unlink("/empty") == 0 && mq_unlink("/full") == 0);
    CHECK(sem_unlink("/s") == 0);
}

static volatile sig_atomic_t posts;

static void post(int signal)
{
    (void)signal;
    if (sem_post(semaphore) == 0)
        posts++;
}

/* At any instruction of the same calls on the same semaphore. */
static void test_post_in_handler(void)
{
    enum { ROUNDS = 300000 };
    struct sigaction action = { .sa_handler = post, .sa_flags = SA_RESTART };
    struct itimerval often = { { 0, 50 }, { 0, 50 } }, never = { { 0, 0 }, { 0, 0 } };
    int taken = 0, posted = 0, left;
    semaphore = sem_open("/s", O_CREAT | O_EXCL, 0600, 0);
    CHECK(semaphore != SEM_FAILED && sigaction(SIGALRM, &action, NULL) == 0);
    CHECK(setitimer(ITIMER_REAL, &often, NULL) == 0);
    for (int round = 0; round < ROUNDS; round++) {
        CHECK(sem_post(semaphore) == 0);
        posted++;
        if (sem_trywait(semaphore) == 0)
            taken++;
        else
            CHECK(errno == EAGAIN || errno == EINTR);
    }
    /* Blocked, only the handler can help. */
    while (sem_trywait(semaphore) == 0)
        taken++;
    for (int round = 0; round < 20; round++) {
        while (sem_wait(semaphore) == -1)
            CHECK(errno == EINTR);
        taken++;
    }
    CHECK(setitimer(ITIMER_REAL, &never, NULL) == 0);
    CHECK(sem_getvalue(semaphore, &left) == 0);
    CHECK(posts > 20 && posted + posts == taken + left);
    CHECK(sem_unlink("/s") == 0);
    puts("post_in_handler");
}

int main(int argc, char **argv)
{
    static const struct test tests[] = {
        { "notice_signal", test_notice_signal },
        { "notice_thread", test_notice_thread },
        { "interrupt", test_interrupt },
        { "post_in_handler", test_post_in_handler },
        { NULL, NULL },
    };
    return run_test(argc, argv, tests);
}
