#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/file.h>

int main(void) {
  int lock = open("/mnt/locks/default/backup", O_RDWR | O_CREAT | O_CLOEXEC, 0666);
  if (lock < 0 || flock(lock, LOCK_EX) != 0) return perror("backup"), 1;
  return system("./backup.sh") != 0;
}
