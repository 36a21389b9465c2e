set -C                                           # noclobber: > of a name that exists fails
{ ./backup.sh; } 9>/mnt/locks/default/backup     # held, at once or not at all, while the block runs
