// Compiled by tests/c.rs: prints its argument and exits with status 7.
#include <stdio.h>

int main(int argc, char **argv)
{
    printf("hello %s\n", argc > 1 ? argv[1] : "nobody");
    return 7;
}
