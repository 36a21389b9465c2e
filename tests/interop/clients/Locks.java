// A client of exclusion.sh: FileChannel.lock and tryLock (POSIX locks), and CREATE_NEW (O_EXCL).

import java.io.BufferedReader;
import java.io.IOException;
import java.io.InputStreamReader;
import java.nio.channels.FileChannel;
import java.nio.file.FileAlreadyExistsException;
import java.nio.file.Path;
import java.nio.file.StandardOpenOption;

class Locks {
    static FileChannel open(Path path) throws IOException {
        return FileChannel.open(path, StandardOpenOption.READ, StandardOpenOption.WRITE,
                StandardOpenOption.CREATE);
    }

    // Null if it is held and the method does not wait.
    static FileChannel take(String method, Path path) throws IOException {
        if (method.equals("excl")) {
            return FileChannel.open(path, StandardOpenOption.WRITE, StandardOpenOption.CREATE_NEW);
        }
        FileChannel channel = open(path);
        return switch (method) {
            case "lock" -> channel.lock() == null ? null : channel;
            case "lock-shared" ->
                channel.lock(0, Long.MAX_VALUE, true) == null ? null : channel;
            case "try-lock" -> channel.tryLock() == null ? null : channel;
            case "range" -> channel.tryLock(0, 1, false) == null ? null : channel;
            default -> throw new IOException("no method " + method);
        };
    }

    public static void main(String[] args) throws IOException {
        var input = new BufferedReader(new InputStreamReader(System.in));
        try (FileChannel channel = take(args[0], Path.of(args[1]))) {
            System.out.println(channel == null ? "busy" : "held");
            if (channel == null) return;
            input.readLine();
        } catch (FileAlreadyExistsException e) {
            System.out.println("busy");
            return;
        } catch (IOException e) {
            System.out.println("error " + e.getMessage());
            return;
        }
        System.out.println("released");
        input.readLine();
    }
}
