// SPDX-License-Identifier: Apache-2.0
/* Run the programs that are named as arguments, one after the other, and print for each how it ended. */
#include <signal.h>
#include <stdio.h>
#include <sys/wait.h>
#include <unistd.h>

#define SECONDS 20

int main(int argc, char **argv)
{
	for (int i = 1; i < argc; i++) {
		pid_t child;
		int status = -1;

		fflush(stdout);
		child = fork();
		if (!child) {
			alarm(SECONDS); /* exec keeps it, unless the program handles it */
			execl(argv[i], argv[i], NULL);
			_exit(127);
		}
		waitpid(child, &status, 0);
		if (WIFEXITED(status))
			printf("RESULT %s %d\n", argv[i], WEXITSTATUS(status));
		else
			printf("RESULT %s signal %d\n", argv[i], WTERMSIG(status));
	}
	return 0;
}
