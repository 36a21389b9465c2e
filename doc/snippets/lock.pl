use Fcntl ':flock';

open(my $lock, '>>', '/mnt/locks/default/backup') or die $!;
flock($lock, LOCK_EX) or die $!;
system('./backup.sh');
