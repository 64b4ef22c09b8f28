/* The other end of a System V segment: an int flag at 0, text at 64. shmget(2), shmop(2), shmctl(2). */
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/shm.h>
#include <unistd.h>

static void *attach(int id, int flags)
{
	void *memory = shmat(id, NULL, flags);
	if (memory == (void *)-1) {
		perror("shmat");
		exit(1);
	}
	return memory;
}

static int get(const char *key, size_t size, int flags)
{
	int id = shmget(strtol(key, NULL, 0), size, flags);
	if (id < 0) {
		perror("shmget");
		exit(1);
	}
	return id;
}

int main(int argc, char **argv)
{
	if (argc < 3)
		return 2;
	if (!strcmp(argv[1], "write")) {
		char *memory = attach(get(argv[2], 4096, IPC_CREAT | 0600), 0);
		strcpy(memory + 64, argv[3]);
		atomic_store((atomic_int *)memory, strlen(argv[3]));
		return shmdt(memory);
	}
	if (!strcmp(argv[1], "read")) {
		const char *memory = attach(get(argv[2], 0, 0), SHM_RDONLY);
		int length;
		while (!(length = atomic_load((atomic_int *)memory)))
			usleep(1000);
		printf("%.*s\n", length, memory + 64);
		return shmdt(memory);
	}
	if (!strcmp(argv[1], "hold")) {
		void *memory = attach(atoi(argv[2]), 0);
		printf("attached\n");
		fflush(stdout);
		getchar();
		return shmdt(memory);
	}
	if (!strcmp(argv[1], "write-read-only")) {
		char *memory = attach(atoi(argv[2]), SHM_RDONLY);
		*(volatile char *)memory = 1;
		return 0;
	}
	return 2;
}
