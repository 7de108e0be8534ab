//! A file system of its own that is nearly full. Tests of other crates include this file, too.

use std::fs::File;
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::process::Command;

/// A file system in memory, which goes when the value is dropped.
pub struct SmallDisk(PathBuf);

impl SmallDisk {
    /// Mounts one of so many KiB at a folder that it makes. `None` where this is not Linux, or not allowed, which is
    /// printed.
    pub fn mount(folder: &Path, kib: usize) -> Option<SmallDisk> {
        std::fs::create_dir_all(folder).unwrap();
        let size = format!("size={kib}k");
        let mut mount = Command::new("mount");
        let mounted = mount.args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(folder).output();
        if mounted.is_ok_and(|output| output.status.success()) {
            return Some(SmallDisk(folder.to_owned()));
        }
        println!("skipped: a file system in memory cannot be mounted here");
        None
    }

    /// Leaves so many KiB free.
    pub fn leave(&self, kib: u64) {
        let mut file = File::create(self.0.join("filler")).unwrap();
        let block = [1; 1 << 12];
        let mut length = 0;
        loop {
            match file.write(&block) {
                Ok(written) => length += written as u64,
                Err(error) if error.kind() == ErrorKind::StorageFull => break,
                Err(error) => panic!("{error}"),
            }
        }
        file.set_len(length.saturating_sub(kib << 10)).unwrap();
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(&self.0).status();
    }
}
