//! Where the embedded device keeps its bytes.

use std::fs::File;
use std::io::{self, Seek, SeekFrom};

use vm_memory::{
    Bytes, GuestAddress, GuestMemoryBackend, GuestMemoryMmap, ReadVolatile, WriteVolatile,
};

/// Bytes in a sector, the unit of every address on a virtio disk.
pub(super) const SECTOR: u64 = 512;

/// A disk.
#[derive(Debug)]
pub(super) struct Disk {
    /// None reads as zeros and forgets what is written.
    image: Option<File>,
    /// Size in bytes, whole sectors.
    size: u64,
    writable: bool,
}

impl Disk {
    /// A disk in a file or block device, whose last broken sector, if any, does not count.
    pub(super) fn image(mut image: File, writable: bool) -> io::Result<Self> {
        let size = image.seek(SeekFrom::End(0))?;
        Ok(Self { image: Some(image), size: size - size % SECTOR, writable })
    }

    /// A disk of zeros.
    pub(super) fn null(size: u64, writable: bool) -> Self {
        Self { image: None, size: size - size % SECTOR, writable }
    }

    /// Size in sectors.
    pub(super) fn sectors(&self) -> u64 {
        self.size / SECTOR
    }

    /// Whether it may be written to.
    pub(super) fn is_writable(&self) -> bool {
        self.writable
    }

    /// The byte at which `len` bytes from `sector` start, if they are whole sectors of this disk.
    pub(super) fn place(&self, sector: u64, len: u64) -> Option<u64> {
        let start = sector.checked_mul(SECTOR)?;
        let end = start.checked_add(len)?;
        (len.is_multiple_of(SECTOR) && end <= self.size).then_some(start)
    }

    /// Reads from byte `at` into each of `pieces` of shared memory in turn.
    pub(super) fn read(
        &self,
        mut at: u64,
        pieces: &[(GuestAddress, usize)],
        memory: &GuestMemoryMmap,
    ) -> io::Result<()> {
        let Some(image) = &self.image else {
            return pieces.iter().try_for_each(|&(address, len)| zero(memory, address, len));
        };
        let mut image = image;
        for &(address, len) in pieces {
            image.seek(SeekFrom::Start(at))?;
            // Slice by slice: a short read must not leave a hole at a region's border.
            for slice in memory.get_slices(address, len) {
                let mut slice = slice.map_err(io::Error::other)?;
                image.read_exact_volatile(&mut slice).map_err(io::Error::other)?;
            }
            at += len as u64;
        }
        Ok(())
    }

    /// Writes each of `pieces` of shared memory in turn, from byte `at` on.
    pub(super) fn write(
        &self,
        mut at: u64,
        pieces: &[(GuestAddress, usize)],
        memory: &GuestMemoryMmap,
    ) -> io::Result<()> {
        if !self.writable {
            return Err(io::ErrorKind::ReadOnlyFilesystem.into());
        }
        let Some(mut image) = self.image.as_ref() else { return Ok(()) };
        for &(address, len) in pieces {
            image.seek(SeekFrom::Start(at))?;
            for slice in memory.get_slices(address, len) {
                let slice = slice.map_err(io::Error::other)?;
                image.write_all_volatile(&slice).map_err(io::Error::other)?;
            }
            at += len as u64;
        }
        Ok(())
    }

    /// Waits until what was written is on stable storage.
    pub(super) fn flush(&self) -> io::Result<()> {
        match &self.image {
            Some(image) if self.writable => image.sync_data(),
            _ => Ok(()),
        }
    }
}

/// Fills shared memory with zeros.
pub(super) fn zero(memory: &GuestMemoryMmap, address: GuestAddress, len: usize) -> io::Result<()> {
    const ZEROS: [u8; 4096] = [0; 4096];
    for slice in memory.get_slices(address, len) {
        let slice = slice.map_err(io::Error::other)?;
        let mut done = 0;
        while done < slice.len() {
            let part = ZEROS.get(..slice.len() - done).unwrap_or(&ZEROS);
            slice.write_slice(part, done).map_err(io::Error::other)?;
            done += part.len();
        }
    }
    Ok(())
}
