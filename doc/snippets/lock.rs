use std::{fs::OpenOptions, io::Write, process::Command};

fn main() -> std::io::Result<()> {
    let mut lock = OpenOptions::new().create(true).append(true).open("/mnt/locks/default/backup")?;
    lock.write_all(b"EX timeout=1h")?;           // a mode string: no crate is needed
    Command::new("./backup.sh").status()?;
    Ok(())
}
