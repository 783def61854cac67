/* Shows why Wine fails to start a program now and then ("failed to map the shared user data:
 * c0000018"; CreateProcess then fails with error 1359, "internal error").
 *
 * Windows has a page that all programs share at 0x7ffe0000, and Wine has to map it there. Wine's
 * loader, wine64, is linked to 0x7d000000. The kernel puts the heap of a program somewhere behind
 * the program: at a random place within 1 GB on newer kernels (32 MB before), so at times over that
 * page. Wine's preloader keeps the place free, but not every distribution has one for 64 bits.
 *
 * This program is linked to the same address, and is loaded again and again. It tries to map the
 * page, and prints how often it could not. Its heap has 16 MB, so that a hundred loads show what
 * takes thousands with the small heap of the loader. With `setarch -R`, the heap is always right
 * behind the program, and far from the page. */
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

static int load(void) {
    void *page = (void *)0x7ffe0000;
    if (sbrk(16 << 20) == (void *)-1) return 2;
    void *got = mmap(page, 4096, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
    return got != page;
}

int main(int argc, char **argv) {
    if (argc < 2) return load();
    int loads = atoi(argv[1]), failed = 0;
    for (int number = 0; number < loads; number++) {
        pid_t child = vfork();
        if (child == 0) {
            execl(argv[0], argv[0], (char *)NULL);
            _exit(2);
        }
        int status;
        if (child < 0 || waitpid(child, &status, 0) != child) return 2;
        if (WEXITSTATUS(status) == 2) return 2;
        failed += status != 0;
    }
    printf("%d\n", failed);
    return 0;
}
