import { execFileSync } from "node:child_process";
import { closeSync, openSync, writeSync } from "node:fs";

const lock = openSync("/mnt/locks/default/backup", "a");
writeSync(lock, "EX timeout=1h");                // node has no flock: a mode string
execFileSync("./backup.sh", { stdio: "inherit" });
closeSync(lock);
