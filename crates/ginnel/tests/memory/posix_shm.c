/* The other end of POSIX shared memory: an int flag at 0, text at 64. shm_open(3), mmap(2). */
#include <fcntl.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

int main(int argc, char **argv)
{
	if (argc < 3)
		return 2;
	int writes = !strcmp(argv[1], "write");
	int fd = shm_open(argv[2], writes ? O_CREAT | O_RDWR : O_RDONLY, 0600);
	if (fd < 0) {
		perror("shm_open");
		return 1;
	}
	if (writes && ftruncate(fd, 4096)) {
		perror("ftruncate");
		return 1;
	}
	char *memory = mmap(NULL, 4096, writes ? PROT_READ | PROT_WRITE : PROT_READ, MAP_SHARED, fd, 0);
	if (memory == MAP_FAILED) {
		perror("mmap");
		return 1;
	}
	close(fd);
	if (writes) {
		strcpy(memory + 64, argv[3]);
		atomic_store((atomic_int *)memory, strlen(argv[3]));
	} else {
		int length;
		while (!(length = atomic_load((atomic_int *)memory)))
			usleep(1000);
		printf("%.*s\n", length, memory + 64);
	}
	return 0;
}
