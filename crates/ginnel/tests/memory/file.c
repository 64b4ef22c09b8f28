/* The other end of a mapped file: writes or prints a part of it through a mapping. mmap(2), msync(2). */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

int main(int argc, char **argv)
{
	if (argc != 5)
		return 2;
	int fd = open(argv[2], O_RDWR);
	struct stat status;
	if (fd < 0 || fstat(fd, &status)) {
		perror(argv[2]);
		return 1;
	}
	char *memory = mmap(NULL, status.st_size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (memory == MAP_FAILED) {
		perror("mmap");
		return 1;
	}
	char *place = memory + atol(argv[3]);
	if (!strcmp(argv[1], "write")) {
		memcpy(place, argv[4], strlen(argv[4]));
		return msync(memory, status.st_size, MS_SYNC);
	}
	printf("%.*s\n", atoi(argv[4]), place);
	return 0;
}
