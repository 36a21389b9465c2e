<?php
$lock = fopen('/mnt/locks/default/backup', 'c');
flock($lock, LOCK_EX);
passthru('./backup.sh');
fclose($lock);
