# A client of exclusion.sh: Perl's flock, sysopen with O_EXCL, fcntl with a packed struct flock.
use strict;
use warnings;
use Fcntl qw(:DEFAULT :flock);

my ($method, $path) = @ARGV;
$| = 1;

sub refused {
    print $!{EWOULDBLOCK} || $!{EEXIST} ? "busy\n" : "error $!\n";
    exit 0;
}

my %flock = ('flock' => LOCK_EX, 'flock-shared' => LOCK_SH, 'flock-nb' => LOCK_EX | LOCK_NB);
my $file;
if ($method eq 'excl') {
    sysopen($file, $path, O_WRONLY | O_CREAT | O_EXCL) or refused();
} else {
    open($file, '+>>', $path) or refused();
    if (exists $flock{$method}) {
        flock($file, $flock{$method}) or refused();
    } else {
        my $command = $method eq 'fcntl' ? F_SETLKW : F_SETLK;
        my $whole = pack('ssx4qqix4', F_WRLCK, 0, 0, 0, 0);
        fcntl($file, $command, $whole) or refused();
    }
}
print "held\n";
<STDIN>;
close($file);
print "released\n";
<STDIN>;
