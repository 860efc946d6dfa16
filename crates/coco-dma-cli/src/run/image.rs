//! The files of `run`: the image that is read, the one that is written, and their hashes.

use std::fs::File;
use std::fs::OpenOptions;
use std::io::Seek;
use std::io::SeekFrom;
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::os::unix::fs::FileTypeExt;
use std::os::unix::fs::MetadataExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::sync::mpsc::Receiver;
use std::sync::mpsc::RecvTimeoutError;
use std::sync::mpsc::sync_channel;
use std::time::Duration;

use sha2::Digest;
use sha2::Sha256;

use crate::failure::Failure;

/// Bytes of a sector, the unit of virtio-blk (virtio 1.3, 5.2.4).
const SECTOR: u64 = 512;
/// Size of the image that is made where none is given.
const MADE: u64 = 64 << 20;
/// How much is hashed or written at a time.
const CHUNK: usize = 1 << 20;

/// An image and its length in bytes.
#[derive(Debug)]
pub(super) struct Image {
    pub(super) file: File,
    pub(super) len: u64,
}

impl Image {
    /// The image at `path`, if it can be a disk.
    pub(super) fn open(path: &Path) -> Result<Self, Failure> {
        let wrong = |why: String| Failure::Usage(format!("the image '{}' {why}", path.display()));
        // A named pipe must not keep us waiting.
        let mut file = OpenOptions::new()
            .read(true)
            .custom_flags(rustix::fs::OFlags::NONBLOCK.bits().cast_signed())
            .open(path)
            .map_err(|error| wrong(format!("cannot be read: {}", why(&error))))?;
        let meta = file
            .metadata()
            .map_err(|error| wrong(format!("cannot be examined: {}", why(&error))))?;
        let kind = meta.file_type();
        if kind.is_dir() {
            return Err(wrong("is a directory, not an image".to_owned()));
        }
        if !kind.is_file() && !kind.is_block_device() {
            return Err(wrong("is neither a regular file nor a block device".to_owned()));
        }
        let len = file
            .seek(SeekFrom::End(0))
            .map_err(|error| wrong(format!("cannot be measured: {}", why(&error))))?;
        match len {
            0 => Err(wrong("is empty; a disk has at least one sector of 512 bytes".to_owned())),
            len if len % SECTOR != 0 => {
                Err(wrong(format!("has {len} bytes, which is no multiple of 512")))
            }
            len => Ok(Self { file, len }),
        }
    }

    /// An image of 64 MiB that is not trivial: text, noise, runs of one byte and holes. It has no
    /// name, so that nothing of it is left behind.
    pub(super) fn make() -> Result<Self, Failure> {
        let mut file = nameless()?;
        let mut state = 0x9e37_79b9_7f4a_7c15u64;
        let mut block = vec![0u8; CHUNK];
        for number in 0..MADE / CHUNK as u64 {
            for (place, bytes) in block.chunks_mut(8).enumerate() {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                let word = match (number + place as u64 / 4096) % 4 {
                    0 => state.to_le_bytes(),
                    1 => 0u64.to_le_bytes(),
                    2 => *b"coco-dma",
                    _ => (number << 32 | place as u64).to_be_bytes(),
                };
                bytes.copy_from_slice(word.get(..bytes.len()).unwrap_or(&[]));
            }
            file.write_all(&block).map_err(|error| temporary(&error))?;
        }
        Ok(Self { file, len: MADE })
    }

    /// A second handle of the same file.
    pub(super) fn share(&self) -> Result<File, Failure> {
        share(&self.file)
    }
}

/// A second handle of a file.
pub(super) fn share(file: &File) -> Result<File, Failure> {
    file.try_clone()
        .map_err(|error| Failure::NotHeld(format!("a file cannot be shared: {}", why(&error))))
}

/// A nameless file of `len` bytes whose contents may be lost.
pub(super) fn scratch(len: u64) -> Result<File, Failure> {
    let file = nameless()?;
    file.set_len(len).map_err(|error| temporary(&error))?;
    Ok(file)
}

/// The file to write, of the length of the image, empty before.
pub(super) fn output(path: Option<&Path>, image: &Image) -> Result<File, Failure> {
    let Some(path) = path else {
        let file = nameless()?;
        file.set_len(image.len).map_err(|error| temporary(&error))?;
        return Ok(file);
    };
    let wrong = |why: String| Failure::Usage(format!("the output '{}' {why}", path.display()));
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .custom_flags(rustix::fs::OFlags::NONBLOCK.bits().cast_signed())
        .open(path)
        .map_err(|error| wrong(format!("cannot be written: {}", why(&error))))?;
    let (there, here) = (file.metadata(), image.file.metadata());
    let (Ok(there), Ok(here)) = (there, here) else {
        return Err(wrong("cannot be examined".to_owned()));
    };
    if (there.dev(), there.ino()) == (here.dev(), here.ino()) {
        return Err(wrong("is the image itself".to_owned()));
    }
    if there.file_type().is_file() {
        file.set_len(0).and_then(|()| file.set_len(image.len)).map_err(|error| {
            wrong(format!("cannot be made as long as the image: {}", why(&error)))
        })?;
        return Ok(file);
    }
    Err(wrong("is no regular file".to_owned()))
}

/// A hash that is being computed, on a thread of its own: so it runs beside a copy, and a disk that
/// does not answer keeps nobody.
pub(super) struct Sum {
    /// Bytes hashed so far.
    done: Arc<AtomicU64>,
    hash: Receiver<std::io::Result<String>>,
}

impl Sum {
    /// Begins the SHA-256 of the first `len` bytes of a file.
    ///
    /// Reads at places of its own: a device process that was given this open file shares its
    /// position, and moves it.
    pub(super) fn begin(file: File, len: u64) -> Self {
        Self::of(move |chunk, at| file.read_at(chunk, at), len)
    }

    fn of<R>(read: R, len: u64) -> Self
    where
        R: FnMut(&mut [u8], u64) -> std::io::Result<usize> + Send + 'static,
    {
        let done = Arc::new(AtomicU64::new(0));
        let (send, hash) = sync_channel(1);
        let progress = Arc::clone(&done);
        std::thread::spawn(move || send.send(sha256(read, len, &progress)));
        Self { done, hash }
    }

    /// Waits for the hash, as long as the file is read on: it may rest for `patience`.
    pub(super) fn end(self, patience: Duration) -> Result<String, Failure> {
        let wrong = |why: &str| {
            Err(Failure::NotHeld(format!("a file cannot be read back for its hash: {why}")))
        };
        let mut before = self.done.load(Ordering::Relaxed);
        loop {
            match self.hash.recv_timeout(patience) {
                Ok(Ok(hash)) => return Ok(hash),
                Ok(Err(error)) => return wrong(&why(&error)),
                Err(RecvTimeoutError::Disconnected) => return wrong("its thread has ended"),
                Err(RecvTimeoutError::Timeout) => {
                    let done = self.done.load(Ordering::Relaxed);
                    if done == before {
                        return wrong(&format!("its disk has not answered for {patience:?}"));
                    }
                    before = done;
                }
            }
        }
    }
}

fn sha256(
    mut read: impl FnMut(&mut [u8], u64) -> std::io::Result<usize>,
    len: u64,
    done: &AtomicU64,
) -> std::io::Result<String> {
    let mut hash = Sha256::new();
    let mut chunk = vec![0u8; CHUNK];
    let mut at = 0;
    while at < len {
        let want = usize::try_from(len - at).unwrap_or(CHUNK).min(CHUNK);
        match read(chunk.get_mut(..want).unwrap_or_default(), at) {
            Ok(0) => break,
            Ok(count) => {
                hash.update(chunk.get(..count).unwrap_or(&[]));
                at += count as u64;
                done.store(at, Ordering::Relaxed);
            }
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(hex(&hash.finalize()))
}

/// Bytes as lower-case hex.
pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn nameless() -> Result<File, Failure> {
    tempfile::tempfile().map_err(|error| temporary(&error))
}

fn temporary(error: &std::io::Error) -> Failure {
    Failure::NotHeld(format!(
        "a temporary file in '{}' failed: {}; set TMPDIR to a folder with room",
        std::env::temp_dir().display(),
        why(error)
    ))
}

/// The error without its number.
pub(super) fn why(error: &std::io::Error) -> String {
    let text = error.to_string();
    match text.find(" (os error") {
        Some(end) => text.get(..end).unwrap_or(&text).to_lowercase(),
        None => text.to_lowercase(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEN: u64 = 3 * CHUNK as u64;

    fn zeroes(chunk: &mut [u8]) -> std::io::Result<usize> {
        chunk.fill(0);
        Ok(chunk.len())
    }

    /// A run waited for its hash as long as the disk of the image was silent.
    #[test]
    fn a_disk_that_does_not_answer_is_told() {
        let (release, held) = sync_channel::<()>(0);
        let sum = Sum::of(
            move |chunk, at| {
                if at == 2 * CHUNK as u64 {
                    let _ = held.recv();
                }
                zeroes(chunk)
            },
            LEN,
        );
        let told = sum.end(Duration::from_millis(100)).unwrap_err().to_string();
        assert!(told.ends_with("its disk has not answered for 100ms"), "{told}");
        drop(release);
    }

    #[test]
    fn a_slow_disk_is_waited_for() {
        let file = scratch(LEN).unwrap();
        let patience = Duration::from_secs(30);
        let quick = Sum::begin(share(&file).unwrap(), LEN).end(patience).unwrap();
        let slow = Sum::of(
            |chunk, _| {
                std::thread::sleep(Duration::from_millis(1200));
                zeroes(chunk)
            },
            LEN,
        );
        // Less than the whole takes, more than one chunk.
        assert_eq!(slow.end(Duration::from_secs(3)).unwrap(), quick);
        let broken = Sum::of(|_, _| Err(std::io::Error::from_raw_os_error(5)), LEN);
        let told = broken.end(patience).unwrap_err().to_string();
        assert!(told.ends_with("for its hash: input/output error"), "{told}");
    }
}
