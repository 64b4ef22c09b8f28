/* Calls by their numbers, from many threads, and beside semaphores that are nobody's but the program's. */
#include "check.h"

/* In the kernel's way: names without a slash. */
static void test_syscall(void)
{
    struct message message = { 3, "raw" };
    struct msqid_ds status;
    int queue = syscall(SYS_msgget, 0x99, IPC_CREAT | 0600);
    CHECK(queue >= 0 && msgget(0x99, 0) == queue);
    CHECK(syscall(SYS_msgsnd, queue, &message, 4, 0) == 0);
    memset(&message, 0, sizeof message);
    CHECK(syscall(SYS_msgrcv, queue, &message, 64, 3, IPC_NOWAIT) == 4 && !strcmp(message.text, "raw"));
    errno = 0;
    CHECK(syscall(SYS_msgrcv, queue, &message, 64, 0, IPC_NOWAIT) == -1 && errno == ENOMSG);
    CHECK(syscall(SYS_msgctl, queue, IPC_STAT, &status) == 0 && status.msg_qnum == 0);
    CHECK(syscall(SYS_msgctl, queue, IPC_RMID, NULL) == 0);

    struct sembuf up = { 0, 2, 0 }, down = { 0, -3, 0 };
    struct timespec none = { 0, 0 };
    int set = syscall(SYS_semget, IPC_PRIVATE, 1, 0600);
    CHECK(set >= 0 && syscall(SYS_semop, set, &up, 1) == 0 && syscall(SYS_semctl, set, 0, GETVAL, 0) == 2);
    CHECK(syscall(SYS_semctl, set, 0, SETVAL, 1) == 0 && semctl(set, 0, GETVAL) == 1);
    errno = 0;
    CHECK(syscall(SYS_semtimedop, set, &down, 1, &none) == -1 && errno == EAGAIN);
    CHECK(syscall(SYS_semctl, set, 0, IPC_RMID, 0) == 0);

    int memory = syscall(SYS_shmget, IPC_PRIVATE, 4096, 0600);
    char *at = (char *)syscall(SYS_shmat, memory, NULL, 0);
    CHECK(memory >= 0 && at != (void *)-1);
    strcpy(at, "raw");
    char *again = shmat(memory, NULL, SHM_RDONLY);
    CHECK(again != (void *)-1 && !strcmp(again, "raw"));
    CHECK(syscall(SYS_shmdt, at) == 0 && shmdt(again) == 0 && syscall(SYS_shmctl, memory, IPC_RMID, NULL) == 0);
    FAILS(EINVAL, syscall(SYS_shmdt, at));

    struct mq_attr limits = { .mq_maxmsg = 3, .mq_msgsize = 16 }, now;
    char text[16];
    unsigned priority = 0;
    int number = syscall(SYS_mq_open, "raw", O_CREAT | O_RDWR | O_NONBLOCK, 0600, &limits);
    CHECK(number >= 0);
    mqd_t same = mq_open("/raw", O_RDWR);
    CHECK(same >= 0 && mq_send(same, "text", 4, 7) == 0);
    CHECK(syscall(SYS_mq_timedreceive, number, text, 16, &priority, NULL) == 4 && priority == 7);
    errno = 0;
    CHECK(syscall(SYS_mq_timedreceive, number, text, 16, &priority, NULL) == -1 && errno == EAGAIN);
    CHECK(syscall(SYS_mq_timedsend, number, "x", 1, 0, NULL) == 0);
    CHECK(syscall(SYS_mq_getsetattr, number, NULL, &now) == 0 && now.mq_flags == O_NONBLOCK && now.mq_curmsgs == 1);
    struct mq_attr blocking = { .mq_flags = 0 };
    CHECK(syscall(SYS_mq_getsetattr, number, &blocking, &now) == 0 && now.mq_flags == O_NONBLOCK);
    CHECK(mq_getattr(number, &now) == 0 && now.mq_flags == 0);
    CHECK(syscall(SYS_mq_notify, number, NULL) == 0);
    errno = 0;
    CHECK(syscall(SYS_mq_unlink, "none") == -1 && errno == ENOENT);
    CHECK(syscall(SYS_mq_unlink, "raw") == 0 && syscall(SYS_close, number) == 0 && mq_close(same) == 0);
    /* Another call goes through. */
    CHECK(syscall(SYS_getppid) == getppid());
    puts("syscall");
}

/* sem_init(3): in the program's own memory, shared with a fork or not. */
static void test_unnamed(void)
{
    struct both {
        sem_t mine, theirs;
    } *shared = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    sem_t own, *named = sem_open("/named", O_CREAT | O_EXCL, 0600, 0);
    int value;
    CHECK(shared != MAP_FAILED && named != SEM_FAILED);
    CHECK(sem_init(&own, 0, 2) == 0 && sem_init(&shared->mine, 1, 0) == 0 && sem_init(&shared->theirs, 1, 0) == 0);
    CHECK(sem_wait(&own) == 0 && sem_trywait(&own) == 0);
    FAILS(EAGAIN, sem_trywait(&own));
    pid_t child = fork();
    if (child == 0) {
        for (int i = 0; i < 2000; i++)
            CHECK(sem_wait(&shared->theirs) == 0 && sem_post(named) == 0 && sem_post(&shared->mine) == 0);
        _exit(0);
    }
    for (int i = 0; i < 2000; i++)
        CHECK(sem_post(&shared->theirs) == 0 && sem_wait(named) == 0 && sem_wait(&shared->mine) == 0);
    reap(child);
    struct timespec past = { 1, 0 };
    FAILS(ETIMEDOUT, sem_timedwait(&own, &past));
    FAILS(ETIMEDOUT, sem_timedwait(named, &past));
    FAILS(ETIMEDOUT, sem_clockwait(&own, CLOCK_MONOTONIC, &past));
    FAILS(ETIMEDOUT, sem_clockwait(named, CLOCK_MONOTONIC, &past));
    CHECK(sem_getvalue(&own, &value) == 0 && value == 0 && sem_getvalue(named, &value) == 0 && value == 0);
    CHECK(sem_init(&own, 0, SEM_VALUE_MAX) == 0);
    FAILS(EOVERFLOW, sem_post(&own));
    FAILS(EINVAL, sem_init(&own, 0, SEM_VALUE_MAX + 1U));
    CHECK(sem_destroy(&own) == 0 && sem_destroy(&shared->mine) == 0 && sem_destroy(&shared->theirs) == 0);
    /* Where a named one was, there may be another. */
    CHECK(sem_close(named) == 0 && sem_unlink("/named") == 0);
    CHECK(sem_init(&own, 0, 1) == 0 && sem_wait(&own) == 0 && sem_destroy(&own) == 0);
    puts("unnamed");
}

enum { THREADS = 4, ROUNDS = 3000 };
static int queue_id, set_id, memory_id;
static mqd_t queue;
static sem_t *semaphore;
static long counted[THREADS];
static pthread_barrier_t start;

/* Each puts in as much as it takes out, of everything; the semaphores guard a counter each. */
static long by_set, by_semaphore;

static void *work(void *number)
{
    long own = (long)number;
    struct sembuf down = { 0, -1, SEM_UNDO }, up = { 0, 1, SEM_UNDO };
    struct message message;
    char text[16];
    pthread_barrier_wait(&start);
    for (int round = 0; round < ROUNDS; round++) {
        message.kind = own + 1;
        CHECK(msgsnd(queue_id, &message, 8, 0) == 0);
        CHECK(msgrcv(queue_id, &message, 64, own + 1, 0) == 8);
        CHECK(mq_send(queue, "x", 1, (unsigned)own) == 0 && mq_receive(queue, text, 16, NULL) == 1);
        CHECK(semop(set_id, &down, 1) == 0);
        by_set++;
        CHECK(semop(set_id, &up, 1) == 0);
        CHECK(sem_wait(semaphore) == 0);
        by_semaphore++;
        CHECK(sem_post(semaphore) == 0);
        if (round % 16 == 0) {
            long *at = shmat(memory_id, NULL, 0);
            CHECK(at != (void *)-1);
            at[own]++;
            CHECK(shmdt(at) == 0);
            mqd_t same = mq_open("/queue", O_RDWR);
            sem_t *other = sem_open("/s", 0);
            CHECK(same != -1 && other == semaphore && sem_close(other) == 0 && mq_close(same) == 0);
            int gone = msgget(IPC_PRIVATE, 0600);
            CHECK(gone >= 0 && msgctl(gone, IPC_RMID, NULL) == 0);
            counted[own]++;
        }
    }
    return NULL;
}

static void test_threads(void)
{
    pthread_t threads[THREADS];
    struct msqid_ds status;
    struct mq_attr now;
    queue_id = msgget(IPC_PRIVATE, 0600);
    set_id = semget(IPC_PRIVATE, 1, 0600);
    memory_id = shmget(IPC_PRIVATE, 4096, 0600);
    queue = new_queue("/queue", O_RDWR, THREADS);
    semaphore = sem_open("/s", O_CREAT | O_EXCL, 0600, 1);
    CHECK(semctl(set_id, 0, SETVAL, 1) == 0 && pthread_barrier_init(&start, NULL, THREADS) == 0);
    for (long i = 0; i < THREADS; i++)
        CHECK(pthread_create(&threads[i], NULL, work, (void *)i) == 0);
    for (int i = 0; i < THREADS; i++)
        CHECK(pthread_join(threads[i], NULL) == 0);
    CHECK(by_set == THREADS * ROUNDS && by_semaphore == THREADS * ROUNDS);
    CHECK(msgctl(queue_id, IPC_STAT, &status) == 0 && status.msg_qnum == 0);
    CHECK(mq_getattr(queue, &now) == 0 && now.mq_curmsgs == 0);
    long *at = shmat(memory_id, NULL, 0);
    for (int i = 0; i < THREADS; i++)
        CHECK(at[i] == counted[i]);
    struct shmid_ds memory;
    CHECK(shmctl(memory_id, IPC_STAT, &memory) == 0 && memory.shm_nattch == 1);
    CHECK(msgctl(queue_id, IPC_RMID, NULL) == 0 && semctl(set_id, 0, IPC_RMID) == 0);
    CHECK(shmdt(at) == 0 && shmctl(memory_id, IPC_RMID, NULL) == 0);
    CHECK(mq_unlink("/queue") == 0 && sem_unlink("/s") == 0);
    /* And nobody else has started one. */
    int status_of = open("/proc/self/status", O_RDONLY);
    char text[4096] = "";
    CHECK(read(status_of, text, sizeof text - 1) > 0 && strstr(text, "\nThreads:\t1\n"));
    puts("threads");
}

int main(int argc, char **argv)
{
    static const struct test tests[] = {
        { "syscall", test_syscall }, { "unnamed", test_unnamed }, { "threads", test_threads }, { NULL, NULL },
    };
    return run_test(argc, argv, tests);
}
