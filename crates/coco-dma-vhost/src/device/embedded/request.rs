//! One request of a virtio-blk ring: taken apart, judged, carried out.
//!
//! The descriptors and everything they point at belong to somebody else, who may change them at
//! any moment. Descriptors and header are copied once and judged as copied.

use std::fmt;
use std::io;
use std::ops::Deref;

use virtio_bindings::bindings::virtio_blk::{
    VIRTIO_BLK_ID_BYTES, VIRTIO_BLK_S_IOERR, VIRTIO_BLK_S_OK, VIRTIO_BLK_S_UNSUPP,
    VIRTIO_BLK_T_FLUSH, VIRTIO_BLK_T_GET_ID, VIRTIO_BLK_T_IN, VIRTIO_BLK_T_OUT,
};
use virtio_queue::DescriptorChain;
use vm_memory::{Bytes, GuestAddress, GuestMemoryBackend, GuestMemoryMmap};

use super::disk::{self, Disk};

/// Bytes of the header that begins every request: type, reserved, sector.
const HEADER: usize = 16;

/// Why a device stops to serve a connection.
#[derive(Debug)]
pub(super) enum Refusal {
    /// A descriptor points at something that was not shared.
    NotShared { address: u64, len: u32 },
    /// A descriptor of length zero.
    Empty { address: u64 },
    /// A chain that does not end as its flags say: a wrong index, a loop, too many bytes, a bad
    /// indirect table.
    Broken { head: u16 },
    /// Something to read after something to write.
    Order { address: u64, len: u32 },
    /// No room for a header and a status.
    TooShort { head: u16 },
    /// The ring itself.
    Ring(String),
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotShared { address, len } => {
                write!(f, "refused descriptor {address:#x} + {len:#x}: not in shared memory")
            }
            Self::Empty { address } => {
                write!(
                    f,
                    "refused descriptor {address:#x} + 0x0: zero sized buffers are not allowed"
                )
            }
            Self::Broken { head } => write!(
                f,
                "refused descriptor chain {head}: it leads out of its table, runs in a circle, is \
                 longer than 4 GiB, or its table is not in shared memory"
            ),
            Self::Order { address, len } => write!(
                f,
                "refused descriptor {address:#x} + {len:#x}: to be read, after one to be written"
            ),
            Self::TooShort { head } => {
                write!(f, "refused descriptor chain {head}: no room for a header and a status")
            }
            Self::Ring(why) => write!(f, "refused the ring: {why}"),
        }
    }
}

type Piece = (GuestAddress, usize);

/// A request whose every descriptor lies in shared memory.
#[derive(Debug)]
pub(super) struct Request {
    kind: u32,
    sector: u64,
    /// What the device reads, after the header.
    given: Vec<Piece>,
    /// What the device writes, before the status.
    wanted: Vec<Piece>,
    status: GuestAddress,
}

impl Request {
    /// Takes a chain apart.
    pub(super) fn parse<M>(
        mut chain: DescriptorChain<M>,
        memory: &GuestMemoryMmap,
    ) -> Result<Self, Refusal>
    where
        M: Deref<Target = GuestMemoryMmap>,
    {
        let head = chain.head_index();
        let (mut given, mut wanted) = (Vec::new(), Vec::new());
        let mut goes_on = true;
        for descriptor in chain.by_ref() {
            let (address, len) = (descriptor.addr(), descriptor.len());
            let refusal_address = address.0;
            if len == 0 {
                return Err(Refusal::Empty { address: refusal_address });
            }
            let size = len as usize;
            // The last byte's successor must have an address too: no wrapping ranges.
            if address.0.checked_add(u64::from(len)).is_none() || !memory.check_range(address, size)
            {
                return Err(Refusal::NotShared { address: refusal_address, len });
            }
            match (descriptor.is_write_only(), wanted.is_empty()) {
                (true, _) => wanted.push((address, size)),
                (false, true) => given.push((address, size)),
                (false, false) => return Err(Refusal::Order { address: refusal_address, len }),
            }
            goes_on = descriptor.has_next();
        }
        // The iterator ends silently at whatever it does not like.
        if goes_on {
            return Err(Refusal::Broken { head });
        }

        let header = take_front(&mut given, memory).ok_or(Refusal::TooShort { head })?;
        let status = take_last_byte(&mut wanted).ok_or(Refusal::TooShort { head })?;
        let [k0, k1, k2, k3, _, _, _, _, sector @ ..] = header;
        let kind = u32::from_le_bytes([k0, k1, k2, k3]);
        Ok(Self { kind, sector: u64::from_le_bytes(sector), given, wanted, status })
    }

    /// Carries it out and writes the status. Answers how many bytes of the request's memory were
    /// written, which is what the used ring reports.
    pub(super) fn execute(&self, disk: &Disk, memory: &GuestMemoryMmap) -> Result<u32, Refusal> {
        let status = match self.kind {
            VIRTIO_BLK_T_IN => self.read(disk, memory),
            VIRTIO_BLK_T_OUT => self.write(disk, memory),
            VIRTIO_BLK_T_FLUSH => disk.flush(),
            VIRTIO_BLK_T_GET_ID => self.identify(memory),
            _ => Err(io::ErrorKind::Unsupported.into()),
        };
        let status = match status {
            Ok(()) => VIRTIO_BLK_S_OK,
            Err(error) if error.kind() == io::ErrorKind::Unsupported => VIRTIO_BLK_S_UNSUPP,
            Err(_) => VIRTIO_BLK_S_IOERR,
        };
        let lost = |error: &dyn fmt::Display| Refusal::Ring(format!("cannot answer: {error}"));
        if status != VIRTIO_BLK_S_OK {
            // What is reported as written is written: a failed read must not pass off what was
            // in the buffer before as data of ours.
            for &(address, len) in &self.wanted {
                disk::zero(memory, address, len).map_err(|error| lost(&error))?;
            }
        }
        let status = u8::try_from(status).unwrap_or(u8::MAX);
        memory.write_obj(status, self.status).map_err(|error| lost(&error))?;
        Ok(u32::try_from(total(&self.wanted) + 1).unwrap_or(u32::MAX))
    }

    fn read(&self, disk: &Disk, memory: &GuestMemoryMmap) -> io::Result<()> {
        let place = disk.place(self.sector, total(&self.wanted));
        match place {
            Some(at) if self.given.is_empty() => disk.read(at, &self.wanted, memory),
            _ => Err(io::ErrorKind::InvalidInput.into()),
        }
    }

    fn write(&self, disk: &Disk, memory: &GuestMemoryMmap) -> io::Result<()> {
        let place = disk.place(self.sector, total(&self.given));
        match place {
            Some(at) if self.wanted.is_empty() => disk.write(at, &self.given, memory),
            _ => Err(io::ErrorKind::InvalidInput.into()),
        }
    }

    fn identify(&self, memory: &GuestMemoryMmap) -> io::Result<()> {
        const NAME: &[u8] = b"coco-dma embedded";
        let mut name = NAME.iter().copied().chain(std::iter::repeat(0));
        let mut room = VIRTIO_BLK_ID_BYTES as usize;
        for &(address, len) in &self.wanted {
            disk::zero(memory, address, len)?;
            let part: Vec<u8> = name.by_ref().take(len.min(room)).collect();
            room -= part.len();
            memory.write_slice(&part, address).map_err(io::Error::other)?;
        }
        Ok(())
    }
}

fn total(pieces: &[Piece]) -> u64 {
    pieces.iter().map(|&(_, len)| len as u64).sum()
}

/// Copies the header out of the first pieces and leaves what comes after it.
fn take_front(pieces: &mut Vec<Piece>, memory: &GuestMemoryMmap) -> Option<[u8; HEADER]> {
    let mut header = [0; HEADER];
    let mut rest: &mut [u8] = &mut header;
    let mut whole = 0;
    for (address, len) in pieces.iter_mut() {
        let (now, later) = rest.split_at_mut_checked((*len).min(rest.len()))?;
        memory.read_slice(now, *address).ok()?;
        *len -= now.len();
        *address = GuestAddress(address.0 + now.len() as u64);
        rest = later;
        if *len > 0 {
            break;
        }
        whole += 1;
    }
    let complete = rest.is_empty();
    pieces.drain(..whole);
    complete.then_some(header)
}

/// Takes the last byte of the last piece, where the status goes.
fn take_last_byte(pieces: &mut Vec<Piece>) -> Option<GuestAddress> {
    let (address, len) = pieces.last_mut()?;
    *len -= 1;
    let status = GuestAddress(address.0 + *len as u64);
    if *len == 0 {
        pieces.pop();
    }
    Some(status)
}
