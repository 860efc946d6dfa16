//! Requests as their owner sees them.

use core::fmt;

use coco_dma::addr::SLOT;
use virtio_bindings::bindings::virtio_blk as blk;

use super::Buffer;

/// Bytes in a sector, the unit of every address on a virtio disk.
pub const SECTOR: usize = 512;
/// Bytes of a request's header.
pub(super) const HEADER: usize = 16;
/// Bytes of a device's name.
pub(crate) const IDENTITY: usize = blk::VIRTIO_BLK_ID_BYTES as usize;
/// Bytes of memory that a request takes beside its data: header and status.
pub(crate) const FRAME: usize = 64;

/// What a request does.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Op {
    /// The device fills the buffer from this sector on.
    Read {
        /// The first sector, of 512 bytes.
        sector: u64,
    },
    /// The device stores the buffer from this sector on.
    Write {
        /// The first sector, of 512 bytes.
        sector: u64,
    },
    /// The device brings what was written to stable storage.
    Flush,
    /// The device says its name, in 20 bytes.
    Identify,
}

impl Op {
    pub(super) fn sector(self) -> u64 {
        match self {
            Self::Read { sector } | Self::Write { sector } => sector,
            Self::Flush | Self::Identify => 0,
        }
    }

    /// The request's header, as the device reads it.
    pub(super) fn header(self) -> [u8; HEADER] {
        let kind: u32 = match self {
            Self::Read { .. } => blk::VIRTIO_BLK_T_IN,
            Self::Write { .. } => blk::VIRTIO_BLK_T_OUT,
            Self::Flush => blk::VIRTIO_BLK_T_FLUSH,
            Self::Identify => blk::VIRTIO_BLK_T_GET_ID,
        };
        let mut header = [0; HEADER];
        let words = kind.to_le_bytes().into_iter().chain([0; 4]);
        let bytes = words.chain(self.sector().to_le_bytes());
        header.iter_mut().zip(bytes).for_each(|(to, from)| *to = from);
        header
    }
}

impl fmt::Display for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Read { sector } => write!(f, "reading from sector {sector}"),
            Self::Write { sector } => write!(f, "writing to sector {sector}"),
            Self::Flush => f.write_str("flushing"),
            Self::Identify => f.write_str("asking for its name"),
        }
    }
}

/// A request with the buffer that it owns until it is done.
#[derive(Debug)]
pub struct Request<'a> {
    /// What it does.
    pub op: Op,
    /// Its buffer, for everything but a flush.
    pub data: Option<Buffer<'a>>,
    /// How many bytes of the buffer, from its start; whole sectors.
    pub len: usize,
}

impl<'a> Request<'a> {
    /// Reads `len` bytes from `sector` on.
    #[must_use]
    pub fn read(sector: u64, data: impl Into<Buffer<'a>>, len: usize) -> Self {
        Self { op: Op::Read { sector }, data: Some(data.into()), len }
    }

    /// Writes `len` bytes from `sector` on.
    #[must_use]
    pub fn write(sector: u64, data: impl Into<Buffer<'a>>, len: usize) -> Self {
        Self { op: Op::Write { sector }, data: Some(data.into()), len }
    }

    /// Asks for the device's name.
    #[must_use]
    pub fn identify(data: impl Into<Buffer<'a>>) -> Self {
        Self { op: Op::Identify, data: Some(data.into()), len: IDENTITY }
    }

    /// Flushes.
    #[must_use]
    pub fn flush() -> Self {
        Self { op: Op::Flush, data: None, len: 0 }
    }
}

/// What became of a request that was submitted.
#[derive(Debug)]
#[must_use = "a request without room comes back in here"]
pub enum Submitted<'a> {
    /// The device has it.
    Taken,
    /// There is no room for it in pool or queue now; wait for a completion and try again.
    NoRoom(Request<'a>),
}

/// What the device says of a request.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Status {
    /// It was carried out.
    Ok,
    /// It failed.
    IoError,
    /// The device does not do such things.
    Unsupported,
    /// A word that no virtio disk knows.
    Unknown(u8),
}

impl From<u8> for Status {
    fn from(byte: u8) -> Self {
        match u32::from(byte) {
            blk::VIRTIO_BLK_S_OK => Self::Ok,
            blk::VIRTIO_BLK_S_IOERR => Self::IoError,
            blk::VIRTIO_BLK_S_UNSUPP => Self::Unsupported,
            _ => Self::Unknown(byte),
        }
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ok => f.write_str("that it was carried out"),
            Self::IoError => f.write_str("I/O error"),
            Self::Unsupported => f.write_str("unsupported"),
            Self::Unknown(byte) => write!(f, "{byte:#04x}, which is no status"),
        }
    }
}

/// A request that the device is done with.
#[derive(Debug)]
pub struct Done<'a> {
    /// The request, its buffer back with its owner. After a read that went well it holds what
    /// the device wrote.
    pub request: Request<'a>,
    /// What the device says of it.
    pub status: Status,
}

/// How many slots of a pool a request with `len` bytes of data takes: header and status bounce
/// too, since the device reads and writes nothing that is private.
pub(crate) const fn slots(len: u64) -> u64 {
    len.div_ceil(SLOT) + 2
}
