<?php
$lock = fopen('/mnt/locks/default/backup', 'c');
flock($lock, LOCK_EX) or exit(1);
passthru('./backup.sh');
fclose($lock);
