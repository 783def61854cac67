/* Keeps a session of Wine alive until its standard input ends.
 *
 * Without a program, a session ends: its services stop, and after some seconds its server. A program
 * that starts in that moment fails ("recvmsg: Connection reset by peer"), or finds services that are
 * about to stop and waits for them. */
#include <stdio.h>

int main(void) {
    puts("ready");
    fflush(stdout);
    while (getchar() != EOF) {
    }
    return 0;
}
