/* The other end of the tests of POSIX semaphores.
 *
 *   posix_semaphore create NAME VALUE   sem_open with O_CREAT | O_EXCL
 *   posix_semaphore wait NAME           sem_wait; prints "done"
 *   posix_semaphore hold NAME           sem_wait; prints "held"; ends, without sem_post, when it reads a line
 *   posix_semaphore post NAME
 *   posix_semaphore value NAME
 *   posix_semaphore memory FILE         sem_init with value 1 in a mapped file, "held", sem_wait twice, "done"
 */
#include <fcntl.h>
#include <semaphore.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

static void check(int failed, const char *call)
{
	if (failed) {
		perror(call);
		exit(1);
	}
}

static void say(const char *word)
{
	puts(word);
	fflush(stdout);
}

int main(int argc, char **argv)
{
	if (argc < 3)
		return 2;
	if (!strcmp(argv[1], "memory")) {
		int fd = open(argv[2], O_RDWR);
		check(fd == -1, "open");
		sem_t *memory = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
		check(memory == MAP_FAILED, "mmap");
		check(sem_init(memory, 1, 1), "sem_init");
		say("held");
		check(sem_wait(memory), "sem_wait");
		check(sem_wait(memory), "sem_wait");
		say("done");
		return 0;
	}
	if (!strcmp(argv[1], "create")) {
		sem_t *made = sem_open(argv[2], O_CREAT | O_EXCL, 0600, (unsigned)atoi(argv[3]));
		check(made == SEM_FAILED, "sem_open");
		return 0;
	}
	sem_t *semaphore = sem_open(argv[2], 0);
	check(semaphore == SEM_FAILED, "sem_open");
	if (!strcmp(argv[1], "post")) {
		check(sem_post(semaphore), "sem_post");
	} else if (!strcmp(argv[1], "value")) {
		int value;
		check(sem_getvalue(semaphore, &value), "sem_getvalue");
		printf("%d\n", value);
	} else {
		check(sem_wait(semaphore), "sem_wait");
		int hold = !strcmp(argv[1], "hold");
		say(hold ? "held" : "done");
		if (hold)
		getchar();
	}
	return 0;
}
