import java.nio.channels.FileChannel;
import java.nio.file.Path;
import static java.nio.file.StandardOpenOption.*;

class Lock {
    public static void main(String[] args) throws Exception {
        var path = Path.of("/mnt/locks/default/backup");
        try (var lock = FileChannel.open(path, CREATE, WRITE)) {
            lock.lock();
            new ProcessBuilder("./backup.sh").inheritIO().start().waitFor();
        }
    }
}
