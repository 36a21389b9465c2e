// A client of exclusion.sh: Node has O_EXCL ("wx") and plain writes; it has no flock of its own.
import fs from "node:fs";

const [method, path] = process.argv.slice(2);

function take() {
  if (method === "excl") return fs.openSync(path, "wx");
  const fd = fs.openSync(path, fs.constants.O_RDWR | fs.constants.O_CREAT);
  fs.writeSync(fd, method === "mode" ? "EX" : "EX try");
  return fd;
}

// A line of the input; null at its end.
function line() {
  const buffer = Buffer.alloc(1);
  return fs.readSync(0, buffer) === 1 ? buffer : null;
}

try {
  const fd = take();
  fs.writeSync(1, "held\n");
  line();
  fs.closeSync(fd);
  fs.writeSync(1, "released\n");
  line();
} catch (error) {
  const busy = error.code === "EEXIST" || error.code === "EAGAIN";
  fs.writeSync(1, busy ? "busy\n" : `error ${error.code}\n`);
}
