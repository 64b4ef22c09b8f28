/* The other end of a memfd: inherits one, or makes one and holds it. memfd_create(2), fcntl(2). */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

static int inherit(int fd)
{
	struct stat status;
	int seals = fcntl(fd, F_GET_SEALS);
	if (seals < 0 || fstat(fd, &status)) {
		perror("fcntl");
		return 1;
	}
	const char *memory = mmap(NULL, status.st_size, PROT_READ, MAP_SHARED, fd, 0);
	if (memory == MAP_FAILED) {
		perror("mmap");
		return 1;
	}
	printf("%d %ld %s\n", seals, (long)status.st_size, memory);
	if (ftruncate(fd, 0) == 0 || errno != EPERM)
		return 1;
	return mmap(NULL, 1, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0) == MAP_FAILED && errno == EPERM ? 0 : 1;
}

static int make(const char *text, int seals)
{
	int fd = memfd_create("from-c", MFD_ALLOW_SEALING | MFD_CLOEXEC);
	if (fd < 0 || write(fd, text, strlen(text)) < 0 || fcntl(fd, F_ADD_SEALS, seals)) {
		perror("memfd_create");
		return 1;
	}
	printf("%d\n", fd);
	fflush(stdout);
	getchar();
	return 0;
}

int main(int argc, char **argv)
{
	if (argc == 3 && !strcmp(argv[1], "inherit"))
		return inherit(atoi(argv[2]));
	if (argc == 4 && !strcmp(argv[1], "make"))
		return make(argv[2], atoi(argv[3]));
	return 2;
}
