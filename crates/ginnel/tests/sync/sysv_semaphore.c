/* The other end of the tests of System V semaphore sets.
 *
 *   sysv_semaphore make KEY VALUE...          semget, SETALL; prints the id
 *   sysv_semaphore op KEY INDEX:CHANGE[u]...  one semop; prints "done"
 *   sysv_semaphore hold KEY INDEX:CHANGE[u].. one semop; prints "held"; ends when it reads a line
 *   sysv_semaphore value KEY INDEX            prints GETVAL
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ipc.h>
#include <sys/sem.h>

union semun {
	int val;
	struct semid_ds *buf;
	unsigned short *array;
};

static void check(int result, const char *call)
{
	if (result == -1) {
		perror(call);
		exit(1);
	}
}

int main(int argc, char **argv)
{
	if (argc < 4)
		return 2;
	key_t key = (key_t)strtoul(argv[2], NULL, 0);
	int count = argc - 3;

	if (!strcmp(argv[1], "make")) {
		unsigned short values[64];
		for (int i = 0; i < count && i < 64; i++)
			values[i] = (unsigned short)atoi(argv[3 + i]);
		int id = semget(key, count, IPC_CREAT | IPC_EXCL | 0600);
		check(id, "semget");
		check(semctl(id, 0, SETALL, (union semun){ .array = values }), "semctl");
		printf("%d\n", id);
		return 0;
	}

	int id = semget(key, 0, 0);
	check(id, "semget");
	if (!strcmp(argv[1], "value")) {
		int value = semctl(id, atoi(argv[3]), GETVAL);
		check(value, "semctl");
		printf("%d\n", value);
		return 0;
	}

	struct sembuf operations[16];
	for (int i = 0; i < count && i < 16; i++) {
		int index, change;
		char undo = 0;
		if (sscanf(argv[3 + i], "%d:%d%c", &index, &change, &undo) < 2)
			return 2;
		operations[i].sem_num = (unsigned short)index;
		operations[i].sem_op = (short)change;
		operations[i].sem_flg = undo == 'u' ? SEM_UNDO : 0;
	}
	check(semop(id, operations, (size_t)count), "semop");
	puts(!strcmp(argv[1], "hold") ? "held" : "done");
	fflush(stdout);
	if (!strcmp(argv[1], "hold"))
		getchar();
	return 0;
}
