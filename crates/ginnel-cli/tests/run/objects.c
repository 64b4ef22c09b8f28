/* One object of each kind, by the C library's calls: `objects VERB KIND NAME [TEXT]`.
 *
 * put: make it if there is none, and put the text (a unit) in. take: wait for one, and print it. limits: what the System V
 * queue with that key may hold. leak: one of each kind with something in it, and none may be there before. */
#define _GNU_SOURCE
#include <err.h>
#include <fcntl.h>
#include <mqueue.h>
#include <semaphore.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ipc.h>
#include <sys/mman.h>
#include <sys/msg.h>
#include <sys/sem.h>
#include <sys/shm.h>
#include <unistd.h>

#define ROOM 8192

struct message {
    long kind;
    char text[ROOM];
};

static int checked(int outcome, const char *call)
{
    if (outcome == -1)
        err(1, "%s", call);
    return outcome;
}

static key_t key_of(const char *name)
{
    return (key_t)strtol(name, NULL, 0);
}

static void queue(int put, const char *name, const char *text)
{
    static struct message message;
    int id = checked(msgget(key_of(name), put ? IPC_CREAT | 0600 : 0), "msgget");
    if (put) {
        message.kind = 1;
        strcpy(message.text, text);
        checked(msgsnd(id, &message, strlen(text), 0), "msgsnd");
    } else {
        int len = checked((int)msgrcv(id, &message, ROOM, 0, 0), "msgrcv");
        printf("%.*s\n", len, message.text);
    }
}

static void posix_queue(int put, const char *name, const char *text)
{
    static char room[ROOM];
    mqd_t queue = checked(mq_open(name, put ? O_CREAT | O_RDWR : O_RDWR, 0600, NULL), "mq_open");
    if (put) {
        checked(mq_send(queue, text, strlen(text), 1), "mq_send");
    } else {
        int len = checked((int)mq_receive(queue, room, ROOM, NULL), "mq_receive");
        printf("%.*s\n", len, room);
    }
}

static void set(int put, const char *name)
{
    struct sembuf change = { 0, put ? 1 : -1, 0 };
    int id = checked(semget(key_of(name), 1, put ? IPC_CREAT | 0600 : 0), "semget");
    checked(semop(id, &change, 1), "semop");
    if (!put)
        puts("taken");
}

static void semaphore(int put, const char *name)
{
    sem_t *semaphore = put ? sem_open(name, O_CREAT, 0600, 0) : sem_open(name, 0);
    if (semaphore == SEM_FAILED)
        err(1, "sem_open");
    checked(put ? sem_post(semaphore) : sem_wait(semaphore), "sem_wait");
    if (!put)
        puts("taken");
}

static void segment(int put, const char *name, const char *text)
{
    int id = checked(shmget(key_of(name), 64, put ? IPC_CREAT | 0600 : 0), "shmget");
    char *at = shmat(id, NULL, 0);
    if (at == (void *)-1)
        err(1, "shmat");
    if (put)
        strcpy(at, text);
    else
        puts(at);
}

static void memory(int put, const char *name, const char *text)
{
    int file = checked(shm_open(name, put ? O_CREAT | O_RDWR : O_RDWR, 0600), "shm_open");
    if (put)
        checked(ftruncate(file, 64), "ftruncate");
    char *at = mmap(NULL, 64, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    if (at == MAP_FAILED)
        err(1, "mmap");
    if (put)
        strcpy(at, text);
    else
        puts(at);
}

static void move(int put, const char *kind, const char *name, const char *text)
{
    if (!strcmp(kind, "sysv-msg"))
        queue(put, name, text);
    else if (!strcmp(kind, "posix-mq"))
        posix_queue(put, name, text);
    else if (!strcmp(kind, "sysv-sem"))
        set(put, name);
    else if (!strcmp(kind, "posix-sem"))
        semaphore(put, name);
    else if (!strcmp(kind, "sysv-shm"))
        segment(put, name, text);
    else if (!strcmp(kind, "posix-shm"))
        memory(put, name, text);
    else
        errx(1, "%s: no such kind", kind);
}

/* Says so on standard output, waits for the end of standard input, and looks whether it is still alone. */
static void leak(void)
{
    static struct message message;
    char own[32];
    int new = IPC_CREAT | IPC_EXCL | 0600;
    int id = checked(msgget(0x2a, new), "msgget");
    checked(semget(0x2a, 3, new), "semget");
    int memory = checked(shmget(0x2a, 4096, new), "shmget");
    char *at = shmat(memory, NULL, 0);
    if (at == (void *)-1)
        err(1, "shmat");
    mqd_t posix = checked(mq_open("/a", O_CREAT | O_EXCL | O_RDWR, 0600, NULL), "mq_open");
    if (sem_open("/a", O_CREAT | O_EXCL, 0600, 1) == SEM_FAILED)
        err(1, "sem_open");
    checked(shm_open("/a", O_CREAT | O_EXCL | O_RDWR, 0600), "shm_open");

    sprintf(own, "%d", getpid());
    message.kind = 1;
    strcpy(message.text, own);
    checked(msgsnd(id, &message, strlen(own) + 1, 0), "msgsnd");
    checked(mq_send(posix, own, strlen(own) + 1, 0), "mq_send");
    strcpy(at, own);
    checked((int)write(1, ".", 1), "write");
    while (read(0, message.text, ROOM) > 0)
        ;
    struct msqid_ds status;
    checked(msgctl(id, IPC_STAT, &status), "msgctl");
    struct mq_attr attributes;
    checked(mq_getattr(posix, &attributes), "mq_getattr");
    if (status.msg_qnum != 1 || attributes.mq_curmsgs != 1)
        errx(1, "%lu and %ld messages", (unsigned long)status.msg_qnum, attributes.mq_curmsgs);
    checked((int)msgrcv(id, &message, ROOM, 0, IPC_NOWAIT), "msgrcv");
    if (strcmp(message.text, own) || strcmp(at, own))
        errx(1, "another's: %s, %s", message.text, at);
    checked(msgsnd(id, &message, strlen(own) + 1, 0), "msgsnd");
}

int main(int argc, char **argv)
{
    const char *verb = argc > 1 ? argv[1] : "";
    if (!strcmp(verb, "leak")) {
        leak();
    } else if (!strcmp(verb, "limits") && argc == 3) {
        struct msqid_ds status;
        checked(msgctl(checked(msgget(key_of(argv[2]), IPC_CREAT | 0600), "msgget"), IPC_STAT, &status), "msgctl");
        printf("%lu\n", (unsigned long)status.msg_qbytes);
    } else if (argc >= 4) {
        move(!strcmp(verb, "put"), argv[2], argv[3], argc > 4 ? argv[4] : "");
    } else {
        errx(2, "objects put|take KIND NAME [TEXT], limits KEY, leak");
    }
    return 0;
}
