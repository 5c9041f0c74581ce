/* Blocks open() of one path for as long as another file exists, as a hung network file system does. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static void block(const char *path) {
    const char *hung = getenv("HUNG_PATH"), *while_there = getenv("HUNG_WHILE");
    while (path && hung && while_there && strcmp(path, hung) == 0 && access(while_there, F_OK) == 0) usleep(10000);
}

#define OPEN(name)                                                     \
    int name(const char *path, int flags, ...) {                       \
        va_list more;                                                  \
        va_start(more, flags);                                         \
        int mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(more, int) : 0; \
        va_end(more);                                                  \
        block(path);                                                   \
        return ((int (*)(const char *, int, ...))dlsym(RTLD_NEXT, #name))(path, flags, mode); \
    }

OPEN(open)
OPEN(open64)
