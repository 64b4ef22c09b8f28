/* What a process has, over fork(2), vfork(2), posix_spawn(3) and exec(3), and when it is killed. */
#include "check.h"
#include <spawn.h>

extern char **environ;

static struct sembuf down = { 0, -1, SEM_UNDO }, up = { 0, 1, 0 };

static int new_set(int value)
{
    int id = semget(IPC_PRIVATE, 1, 0600);
    CHECK(id >= 0 && semctl(id, 0, SETVAL, value) == 0);
    return id;
}

static unsigned long attached(int id)
{
    struct shmid_ds status;
    CHECK(shmctl(id, IPC_STAT, &status) == 0);
    return status.shm_nattch;
}

/* The program executes itself: `verb NUMBER DESCRIPTOR`, and says so when it is there. */
static void execute(const char *verb, int number, int say)
{
    char first[16], second[16];
    sprintf(first, "%d", number);
    sprintf(second, "%d", say);
    execl(arguments[0], arguments[0], verb, first, second, NULL);
    _exit(1);
}

/* Until it is killed. */
static void test_hold(void)
{
    CHECK(write(atoi(arguments[3]), "x", 1) == 1);
    pause();
}

/* Ends by itself. */
static void test_use(void)
{
    int id = atoi(arguments[2]);
    CHECK(semctl(id, 0, GETVAL) == 0);
    CHECK(semop(id, &up, 1) == 0);
    CHECK(semop(id, &down, 1) == 0);
    CHECK(write(atoi(arguments[3]), "x", 1) == 1);
}

static void test_undo(void)
{
    char byte;
    int said[2];
    CHECK(pipe(said) == 0);
    for (int killed = 0; killed < 2; killed++) {
        int id = new_set(1);
        pid_t child = fork();
        if (child == 0) {
            CHECK(semop(id, &down, 1) == 0);
            execute(killed ? "hold" : "use", id, said[1]);
        }
        CHECK(read(said[0], &byte, 1) == 1);
        if (killed) {
            CHECK(semctl(id, 0, GETVAL) == 0);
            kill(child, SIGKILL);
            CHECK(waitpid(child, NULL, 0) == child);
            CHECK(semctl(id, 0, GETVAL) == 1);
        } else {
            /* Its own, of before and after the exec, and none of the one without. */
            reap(child);
            CHECK(semctl(id, 0, GETVAL) == 2);
        }
        /* Whoever waits gets what the dead had. */
        CHECK(semctl(id, 0, SETVAL, 1) == 0);
        child = fork();
        if (child == 0) {
            CHECK(semop(id, &down, 1) == 0);
            execute("hold", id, said[1]);
        }
        CHECK(read(said[0], &byte, 1) == 1);
        pid_t waiter = fork();
        if (waiter == 0) {
            CHECK(semop(id, &down, 1) == 0);
            _exit(0);
        }
        while (semctl(id, 0, GETNCNT) != 1)
            usleep(1000);
        kill(child, SIGKILL);
        CHECK(waitpid(child, NULL, 0) == child);
        reap(waiter);
        CHECK(semctl(id, 0, GETVAL) == 1);
        CHECK(semctl(id, 0, IPC_RMID) == 0);
    }
    puts("undo");
}

/* A fork takes over none of its parent's undo. */
static void test_undo_fork(void)
{
    int id = new_set(1);
    CHECK(semop(id, &down, 1) == 0);
    pid_t child = fork();
    if (child == 0)
        _exit(0);
    reap(child);
    CHECK(semctl(id, 0, GETVAL) == 0);
    child = fork();
    if (child == 0) {
        CHECK(semop(id, &up, 1) == 0);
        CHECK(semop(id, &down, 1) == 0);
        _exit(0);
    }
    reap(child);
    CHECK(semctl(id, 0, GETVAL) == 1);
    CHECK(semctl(id, 0, IPC_RMID) == 0);
    puts("undo_fork");
}

static void test_attached(void)
{
    char byte;
    int said[2], id = shmget(IPC_PRIVATE, 8192, 0600);
    CHECK(id >= 0 && pipe(said) == 0);
    char *at = shmat(id, NULL, 0);
    CHECK(at != (void *)-1 && attached(id) == 1);
    strcpy(at, "parent");
    pid_t child = fork();
    if (child == 0) {
        /* Its parent's is its own, and a second one. */
        CHECK(attached(id) == 2 && !strcmp(at, "parent"));
        char *again = shmat(id, NULL, SHM_RDONLY);
        CHECK(again != (void *)-1 && attached(id) == 3);
        strcpy(at, "child");
        CHECK(!strcmp(again, "child"));
        execute("hold", id, said[1]);
    }
    CHECK(read(said[0], &byte, 1) == 1);
    CHECK(attached(id) == 1 && !strcmp(at, "child"));
    kill(child, SIGKILL);
    CHECK(waitpid(child, NULL, 0) == child);
    CHECK(attached(id) == 1);
    /* One that is killed is attached no more, and who detaches is not. */
    child = fork();
    if (child == 0) {
        CHECK(shmdt(at) == 0 && attached(id) == 1);
        CHECK(shmat(id, NULL, 0) != (void *)-1 && attached(id) == 2);
        kill(getpid(), SIGKILL);
    }
    CHECK(waitpid(child, NULL, 0) == child);
    CHECK(attached(id) == 1);
    /* Removed, it is there until the last is gone: by an exec. */
    child = fork();
    if (child == 0) {
        CHECK(shmctl(id, IPC_RMID, NULL) == 0 && attached(id) == 2);
        execute("hold", id, said[1]);
    }
    CHECK(read(said[0], &byte, 1) == 1);
    CHECK(attached(id) == 1 && !strcmp(at, "child"));
    CHECK(shmdt(at) == 0);
    FAILS(EINVAL, shmctl(id, IPC_STAT, &(struct shmid_ds){ 0 }));
    kill(child, SIGKILL);
    CHECK(waitpid(child, NULL, 0) == child);
    puts("attached");
}

/* Everything that a program may have, and whether it still works. */
struct everything {
    int queue, set, memory;
    char *at;
    sem_t *semaphore;
    char *shared;
};

static struct everything make_everything(void)
{
    struct everything e;
    e.queue = msgget(0x77, IPC_CREAT | 0600);
    e.set = semget(0x77, 1, IPC_CREAT | 0600);
    e.memory = shmget(0x77, 4096, IPC_CREAT | 0600);
    CHECK(e.queue >= 0 && e.set >= 0 && e.memory >= 0);
    e.at = shmat(e.memory, NULL, 0);
    e.semaphore = sem_open("/s", O_CREAT, 0600, 0);
    CHECK(e.at != (void *)-1 && e.semaphore != SEM_FAILED);
    int file = shm_open("/m", O_CREAT | O_RDWR, 0600);
    CHECK(file >= 0 && ftruncate(file, 4096) == 0);
    e.shared = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    CHECK(e.shared != MAP_FAILED && close(file) == 0);
    return e;
}

/* What also the fork of a process with threads may do: the C library's sem_open is not for it. */
static void use_most(struct everything *e)
{
    struct message message = { 1, "text" };
    CHECK(msgsnd(e->queue, &message, 5, 0) == 0);
    CHECK(msgrcv(e->queue, &message, 64, 0, IPC_NOWAIT) == 5);
    struct sembuf both[2] = { { 0, 1, SEM_UNDO }, { 0, -1, SEM_UNDO } };
    CHECK(semop(e->set, both, 2) == 0 && semctl(e->set, 0, GETVAL) == 0);
    CHECK(sem_post(e->semaphore) == 0 && sem_wait(e->semaphore) == 0);
    strcpy(e->at, "attached");
    strcpy(e->shared, "mapped");
    char *again = shmat(e->memory, NULL, 0);
    CHECK(again != (void *)-1 && !strcmp(again, "attached") && shmdt(again) == 0);
    CHECK(msgget(0x77, 0) == e->queue && semget(0x77, 0, 0) == e->set && shmget(0x77, 0, 0) == e->memory);
}

static void use_everything(struct everything *e)
{
    use_most(e);
    sem_t *same = sem_open("/s", 0);
    CHECK(same == e->semaphore && sem_close(same) == 0);
}

static void remove_everything(struct everything *e)
{
    CHECK(msgctl(e->queue, IPC_RMID, NULL) == 0 && semctl(e->set, 0, IPC_RMID) == 0);
    CHECK(shmdt(e->at) == 0 && shmctl(e->memory, IPC_RMID, NULL) == 0);
    CHECK(sem_close(e->semaphore) == 0 && sem_unlink("/s") == 0 && shm_unlink("/m") == 0);
}

static void close_in_a_loop(void)
{
    long most = sysconf(_SC_OPEN_MAX);
    for (int number = 3; number < most; number++)
        close(number);
}

static void close_a_range(void)
{
    CHECK(close_range(3, ~0U, 0) == 0);
}

static void close_from(void)
{
    closefrom(3);
}

static void close_by_dup(void)
{
    long most = sysconf(_SC_OPEN_MAX);
    int null = open("/dev/null", O_RDWR);
    for (int number = 3; number < most; number++)
        if (number != null && fcntl(number, F_GETFD) != -1)
            dup2(null, number);
    close_in_a_loop();
}

static void mark_a_range(void)
{
    CHECK(close_range(3, ~0U, 1 << 2) == 0);
}

static void test_close_all(void)
{
    static void (*const ways[])(void) = { close_in_a_loop, close_a_range, close_from, close_by_dup, mark_a_range };
    for (unsigned way = 0; way < sizeof ways / sizeof *ways; way++) {
        struct everything e = make_everything();
        use_everything(&e);
        mqd_t queue = new_queue("/q", O_RDWR, 2);
        CHECK(queue == 3);
        ways[way]();
        if (ways[way] == mark_a_range)
            CHECK(mq_close(queue) == 0);
        FAILS(EBADF, mq_send(queue, "x", 1, 0));
        /* As if it had never had any. */
        CHECK(open("/dev/null", O_RDWR) == 3 && close(3) == 0);
        use_everything(&e);
        queue = mq_open("/q", O_RDWR);
        CHECK(queue == 3 && mq_send(queue, "x", 1, 0) == 0 && mq_close(queue) == 0 && mq_unlink("/q") == 0);
        /* As daemons do. */
        pid_t child = fork();
        if (child == 0) {
            ways[way]();
            setsid();
            ways[way]();
            use_everything(&e);
            _exit(0);
        }
        reap(child);
        use_everything(&e);
        remove_everything(&e);
    }
    puts("close_all");
}

/* The new program uses what the old one had, by its names. */
static void test_spawned(void)
{
    struct everything e = make_everything();
    use_everything(&e);
    puts("spawned");
}

static void run_by(int way)
{
    char *command[] = { arguments[0], "spawned", NULL };
    pid_t child;
    switch (way) {
    case 0:
        CHECK(posix_spawn(&child, arguments[0], NULL, NULL, command, environ) == 0);
        break;
    case 1: {
        posix_spawn_file_actions_t actions;
        posix_spawn_file_actions_init(&actions);
        posix_spawn_file_actions_addclosefrom_np(&actions, 3);
        CHECK(posix_spawn(&child, arguments[0], &actions, NULL, command, environ) == 0);
        posix_spawn_file_actions_destroy(&actions);
        break;
    }
    case 2:
        child = vfork();
        if (child == 0) {
            execv(arguments[0], command);
            _exit(1);
        }
        break;
    case 3:
        child = fork();
        if (child == 0) {
            execv(arguments[0], command);
            _exit(1);
        }
        break;
    default: {
        char line[512];
        snprintf(line, sizeof line, "%s spawned", arguments[0]);
        CHECK(system(line) == 0);
        return;
    }
    }
    CHECK(child > 0);
    reap(child);
}

static void test_spawn(void)
{
    struct everything e = make_everything();
    for (int way = 0; way < 5; way++) {
        use_everything(&e);
        run_by(way);
    }
    use_everything(&e);
    remove_everything(&e);
}

static volatile sig_atomic_t noticed;

static void notice(int signal)
{
    (void)signal;
    noticed++;
}

/* The child of a vfork closes and duplicates what is its parent's, as those who start programs do. */
static void test_vfork(void)
{
    struct everything e = make_everything();
    struct sigevent event = { .sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGUSR1 };
    char text[16];
    mqd_t queue = new_queue("/q", O_RDWR, 2), other = new_queue("/r", O_RDWR, 2);
    signal(SIGUSR1, notice);
    CHECK(mq_notify(queue, &event) == 0);
    for (int round = 0; round < 2; round++) {
        pid_t child = vfork();
        if (child == 0) {
            dup2(other, queue);
            dup2(queue, 60);
            close(other);
            close_range(3, ~0U, 0);
            execl("/bin/true", "true", NULL);
            _exit(1);
        }
        reap(child);
        struct pollfd waits[2] = { { .fd = queue, .events = POLLIN }, { .fd = other, .events = POLLOUT } };
        CHECK(poll(waits, 2, 0) == 1 && waits[0].revents == 0 && waits[1].revents == POLLOUT);
    }
    CHECK(mq_send(queue, "x", 1, 0) == 0 && noticed == 1);
    CHECK(mq_receive(queue, text, 16, NULL) == 1 && mq_send(other, "yy", 2, 0) == 0);
    CHECK(mq_receive(other, text, 16, NULL) == 2);
    FAILS(EBADF, mq_send(60, "x", 1, 0));
    use_everything(&e);
    remove_everything(&e);
    CHECK(mq_unlink("/q") == 0 && mq_unlink("/r") == 0);
    puts("vfork");
}

static volatile int is_over;

/* Opens, uses and removes objects, so that whatever the library holds while it does so is held when others fork. */
static void *churn(void *unused)
{
    struct message message = { 1, "text" };
    struct sembuf one = { 0, 1, SEM_UNDO };
    char name[32];
    sprintf(name, "/churn-%lu", (unsigned long)pthread_self());
    while (!is_over) {
        int queue = msgget(IPC_PRIVATE, 0600), set = semget(IPC_PRIVATE, 1, 0600);
        int memory = shmget(IPC_PRIVATE, 4096, 0600);
        CHECK(msgsnd(queue, &message, 5, 0) == 0 && semop(set, &one, 1) == 0);
        void *at = shmat(memory, NULL, 0);
        CHECK(at != (void *)-1);
        sem_t *semaphore = sem_open(name, O_CREAT, 0600, 1);
        CHECK(semaphore != SEM_FAILED && sem_wait(semaphore) == 0);
        mqd_t posix = new_queue(name, O_RDWR, 2);
        CHECK(mq_send(posix, "x", 1, 0) == 0);
        struct pollfd wait = { .fd = posix, .events = POLLIN };
        CHECK(poll(&wait, 1, -1) == 1);
        CHECK(mq_close(posix) == 0 && mq_unlink(name) == 0);
        CHECK(sem_close(semaphore) == 0 && sem_unlink(name) == 0);
        CHECK(shmdt(at) == 0 && shmctl(memory, IPC_RMID, NULL) == 0);
        CHECK(semctl(set, 0, IPC_RMID) == 0 && msgctl(queue, IPC_RMID, NULL) == 0);
    }
    return unused;
}

static void test_fork_of_threads(void)
{
    enum { THREADS = 4, FORKS = 300 };
    pthread_t threads[THREADS];
    struct everything e = make_everything();
    for (int i = 0; i < THREADS; i++)
        CHECK(pthread_create(&threads[i], NULL, churn, NULL) == 0);
    for (int i = 0; i < FORKS; i++) {
        pid_t child = fork();
        if (child == 0) {
            alarm(20);
            use_most(&e);
            int queue = msgget(IPC_PRIVATE, 0600);
            CHECK(queue >= 0 && msgctl(queue, IPC_RMID, NULL) == 0);
            mqd_t posix = new_queue("/child", O_RDWR, 2);
            CHECK(mq_send(posix, "x", 1, 0) == 0 && mq_close(posix) == 0 && mq_unlink("/child") == 0);
            _exit(0);
        }
        reap(child);
        use_everything(&e);
    }
    is_over = 1;
    for (int i = 0; i < THREADS; i++)
        CHECK(pthread_join(threads[i], NULL) == 0);
    use_everything(&e);
    remove_everything(&e);
    puts("fork_of_threads");
}

int main(int argc, char **argv)
{
    static const struct test tests[] = {
        { "undo", test_undo },           { "undo_fork", test_undo_fork },
        { "attached", test_attached },   { "close_all", test_close_all },
        { "spawn", test_spawn },         { "vfork", test_vfork },
        { "hold", test_hold },           { "use", test_use },
        { "spawned", test_spawned },     { "fork_of_threads", test_fork_of_threads },
        { NULL, NULL },
    };
    return run_test(argc, argv, tests);
}
