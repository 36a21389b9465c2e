flock /mnt/locks/default/backup ./backup.sh      # -n: not if it is held; -w 5: wait 5 seconds at most
