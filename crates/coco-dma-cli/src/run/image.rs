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
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;

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

/// SHA-256 of the first `len` bytes of a file, read from the file itself. Gives up early, with
/// some hash, once `stop` is set.
///
/// Reads at places of its own: a device process that was given this open file shares its position,
/// and moves it.
pub(super) fn sha256(file: &File, len: u64, stop: &AtomicBool) -> Result<String, Failure> {
    let mut hash = Sha256::new();
    let mut chunk = vec![0u8; CHUNK];
    let mut at = 0;
    while at < len && !stop.load(Ordering::Relaxed) {
        let want = usize::try_from(len - at).unwrap_or(CHUNK).min(CHUNK);
        match file.read_at(chunk.get_mut(..want).unwrap_or_default(), at) {
            Ok(0) => break,
            Ok(count) => {
                hash.update(chunk.get(..count).unwrap_or(&[]));
                at += count as u64;
            }
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => {
                return Err(Failure::NotHeld(format!(
                    "a file cannot be read back for its hash: {}",
                    why(&error)
                )));
            }
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
