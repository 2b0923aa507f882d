//! Writing a cpio archive (format `newc`), which the kernel unpacks into its first root file system. It may consist of
//! several archives, one after the other (Documentation/driver-api/early-userspace/buffer-format.rst).

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};

const DIRECTORY: u32 = 0o040_755;
const EXECUTABLE: u32 = 0o100_755;
const SYMLINK: u32 = 0o120_777;

/// An archive under construction.
#[derive(Default)]
pub struct Archive {
    bytes: Vec<u8>,
    entries: u32,
    directories: BTreeSet<PathBuf>,
}

impl Archive {
    /// A directory with all those above it.
    pub fn directory(&mut self, path: &Path) {
        let mut missing: Vec<&Path> = path.ancestors().filter(|path| path.parent().is_some()).collect();
        missing.reverse();
        for path in missing {
            if self.directories.insert(path.to_owned()) {
                self.entry(path, DIRECTORY, &[]);
            }
        }
    }

    /// A file that may be run.
    pub fn file(&mut self, path: &Path, content: &[u8]) {
        self.above(path);
        self.entry(path, EXECUTABLE, content);
    }

    /// As [`Self::file`], with the content of a file of this machine.
    pub fn copy(&mut self, path: &Path, from: &Path) -> Result<()> {
        let content = fs::read(from).with_context(|| format!("cannot read {}", from.display()))?;
        self.file(path, &content);
        Ok(())
    }

    pub fn symlink(&mut self, path: &Path, to: &Path) {
        self.above(path);
        self.entry(path, SYMLINK, to.as_os_str().as_encoded_bytes());
    }

    /// The whole archive.
    pub fn finish(mut self) -> Vec<u8> {
        self.entry(Path::new("TRAILER!!!"), 0, &[]);
        self.bytes
    }

    fn above(&mut self, path: &Path) {
        if let Some(parent) = path.parent() {
            self.directory(parent);
        }
    }

    fn entry(&mut self, path: &Path, mode: u32, content: &[u8]) {
        self.entries += 1;
        let name = path.strip_prefix("/").unwrap_or(path).as_os_str().as_encoded_bytes();
        let (inode, links, size) = (self.entries, 1, content.len() as u32);
        let name_size = name.len() as u32 + 1;
        // inode, mode, uid, gid, links, mtime, size, device, special device, name's size, checksum
        let fields = [inode, mode, 0, 0, links, 0, size, 0, 0, 0, 0, name_size, 0];
        self.bytes.extend(b"070701");
        for field in fields {
            self.bytes.extend(format!("{field:08x}").bytes());
        }
        self.bytes.extend(name);
        self.bytes.push(0);
        self.pad();
        self.bytes.extend(content);
        self.pad();
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_padded_and_have_their_directories() {
        let mut archive = Archive::default();
        archive.file(Path::new("/a/b/c"), b"12345");
        archive.symlink(Path::new("/a/b/d"), Path::new("c"));
        let bytes = archive.finish();
        assert_eq!(bytes.len() % 4, 0);
        let text = String::from_utf8(bytes).unwrap();
        let names: Vec<&str> =
            text.split("070701").skip(1).map(|entry| entry[104..].split_once('\0').unwrap().0).collect();
        assert_eq!(names, ["a", "a/b", "a/b/c", "a/b/d", "TRAILER!!!"]);
        assert!(text.contains("a/b/c\0") && text.contains("12345\0"), "{text:?}");
        // 110 bytes of header, then the name: the content begins at a multiple of four.
        assert_eq!(text.find("12345").unwrap() % 4, 0);
    }
}
