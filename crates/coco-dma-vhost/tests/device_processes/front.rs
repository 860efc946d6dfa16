//! A small vhost-user front end: one sealed memfd, one hand-made split ring in it, one request
//! at a time. The memfd is read and written with file calls, so nothing here is unsafe.

use std::fs::File;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fs::{MemfdFlags, SealFlags};
use vhost::vhost_user::message::{
    VhostUserConfigFlags, VhostUserHeaderFlag, VhostUserProtocolFeatures as Protocol,
};
use vhost::vhost_user::{Frontend, VhostUserFrontend};
use vhost::{VhostBackend, VhostUserMemoryRegionInfo, VringConfigData};
use vmm_sys_util::eventfd::EventFd;

/// How long a healthy device may take over anything, on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) const POOL: u64 = 0x1_0000_0000;
pub(crate) const SIZE: u64 = 1 << 20;
/// Where the pool would be in a front end that maps it.
const VA: u64 = 0x7000_0000_0000;
const QUEUE: u16 = 16;
const AVAIL: u64 = 0x1000;
const USED: u64 = 0x2000;
const HEADER: u64 = 0x3000;
const STATUS: u64 = 0x3100;
pub(crate) const DATA: u64 = 0x4000;

pub(crate) const NEXT: u16 = 1;
pub(crate) const WRITE: u16 = 2;
pub(crate) const INDIRECT: u16 = 4;

/// What became of a request.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Done { status: u8, len: u32 },
    HungUp,
    Nothing,
}

pub(crate) struct Front {
    pub(crate) front: Frontend,
    stream: UnixStream,
    pub(crate) pool: File,
    kick: EventFd,
    call: EventFd,
    index: u16,
}

/// A sealed memfd.
pub(crate) fn memory(name: &str, size: u64) -> File {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let file = File::from(rustix::fs::memfd_create(name, flags).unwrap());
    file.set_len(size).unwrap();
    rustix::fs::fcntl_add_seals(&file, SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL)
        .unwrap();
    file
}

pub(crate) fn region(file: &File, at: u64, size: u64) -> VhostUserMemoryRegionInfo {
    VhostUserMemoryRegionInfo {
        guest_phys_addr: at,
        memory_size: size,
        userspace_addr: VA + (at - POOL),
        mmap_offset: 0,
        mmap_handle: file.as_raw_fd(),
    }
}

impl Front {
    pub(crate) fn new(stream: UnixStream, writable: bool) -> Self {
        let front = Self::with_rings(stream, writable, AVAIL, USED, 0);
        front.enable();
        front
    }

    /// With rings anywhere in the pool, the used one beginning at an index; not yet enabled.
    pub(crate) fn with_rings(
        stream: UnixStream,
        writable: bool,
        avail: u64,
        used: u64,
        index: u16,
    ) -> Self {
        let pool = memory("shared-pool", SIZE);
        let kick = EventFd::new(libc::EFD_NONBLOCK).unwrap();
        let call = EventFd::new(libc::EFD_NONBLOCK).unwrap();
        let other = stream.try_clone().unwrap();
        let mut front = Frontend::from_stream(stream, 1);
        front.set_owner().unwrap();
        let features = front.get_features().unwrap();
        assert!(features & 1 << 32 != 0, "VERSION_1");
        assert!(features & 1 << 9 != 0, "FLUSH");
        assert_eq!(features & 1 << 5 == 0, writable, "RO");
        let wanted = Protocol::CONFIG | Protocol::REPLY_ACK | Protocol::CONFIGURE_MEM_SLOTS;
        let protocol = front.get_protocol_features().unwrap();
        assert!(protocol.contains(wanted | Protocol::MQ), "{protocol:?}");
        front.set_protocol_features(wanted).unwrap();
        front.set_hdr_flags(VhostUserHeaderFlag::NEED_REPLY);
        front.set_features(1 << 32 | 1 << 30 | 1 << 9 | features & 3 << 28).unwrap();
        front.set_mem_table(&[region(&pool, POOL, SIZE)]).unwrap();
        pool.write_all_at(&index.to_le_bytes(), used + 2).unwrap();
        front.set_vring_num(0, QUEUE).unwrap();
        let ring = VringConfigData {
            queue_max_size: QUEUE,
            queue_size: QUEUE,
            flags: 0,
            desc_table_addr: VA,
            used_ring_addr: VA + used,
            avail_ring_addr: VA + avail,
            log_addr: None,
        };
        front.set_vring_addr(0, &ring).unwrap();
        front.set_vring_base(0, 0).unwrap();
        front.set_vring_call(0, &call).unwrap();
        front.set_vring_kick(0, &kick).unwrap();
        Self { front, stream: other, pool, kick, call, index: 0 }
    }

    pub(crate) fn enable(&self) {
        self.front.clone().set_vring_enable(0, true).unwrap();
    }

    pub(crate) fn config(&mut self, offset: u32, len: u32) -> Vec<u8> {
        let flags = VhostUserConfigFlags::WRITABLE;
        let buffer = vec![0; len as usize];
        self.front.get_config(offset, len, flags, &buffer).unwrap().1
    }

    pub(crate) fn put(&self, at: u64, bytes: &[u8]) {
        self.pool.write_all_at(bytes, at).unwrap();
    }

    pub(crate) fn get(&self, at: u64, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        self.pool.read_exact_at(&mut bytes, at).unwrap();
        bytes
    }

    /// Writes a descriptor of a table at `table` in the pool.
    pub(crate) fn describe(
        &self,
        table: u64,
        at: u16,
        address: u64,
        len: u32,
        flags: u16,
        next: u16,
    ) {
        let mut bytes = Vec::new();
        bytes.extend(address.to_le_bytes());
        bytes.extend(len.to_le_bytes());
        bytes.extend(flags.to_le_bytes());
        bytes.extend(next.to_le_bytes());
        self.put(table + u64::from(at) * 16, &bytes);
    }

    /// Writes a request's header and poisons its status.
    pub(crate) fn header(&self, kind: u32, sector: u64) {
        let mut bytes = Vec::new();
        bytes.extend(kind.to_le_bytes());
        bytes.extend(0_u32.to_le_bytes());
        bytes.extend(sector.to_le_bytes());
        self.put(HEADER, &bytes);
        self.put(STATUS, &[0xEE]);
    }

    /// The usual request: header, one data buffer anywhere, status.
    pub(crate) fn request(&mut self, kind: u32, sector: u64, address: u64, len: u32) -> Outcome {
        self.prepare(kind, sector, address, len);
        self.submit(0)
    }

    /// Writes the usual request's descriptors, as chain 0.
    pub(crate) fn prepare(&self, kind: u32, sector: u64, address: u64, len: u32) {
        self.header(kind, sector);
        let data = if kind == 1 { NEXT } else { NEXT | WRITE };
        self.describe(0, 0, POOL + HEADER, 16, NEXT, 1);
        self.describe(0, 1, address, len, data, 2);
        self.describe(0, 2, POOL + STATUS, 1, WRITE, 0);
    }

    pub(crate) fn read(&mut self, sector: u64, len: u32) -> Outcome {
        self.request(0, sector, POOL + DATA, len)
    }

    pub(crate) fn write(&mut self, sector: u64, len: u32) -> Outcome {
        self.request(1, sector, POOL + DATA, len)
    }

    pub(crate) fn flush(&mut self) -> Outcome {
        self.header(4, 0);
        self.describe(0, 0, POOL + HEADER, 16, NEXT, 1);
        self.describe(0, 1, POOL + STATUS, 1, WRITE, 0);
        self.submit(0)
    }

    /// Makes the chain at `head` available and waits for what becomes of it.
    pub(crate) fn submit(&mut self, head: u16) -> Outcome {
        self.offer(head);
        self.outcome(PATIENCE)
    }

    /// Makes the chain at `head` available.
    pub(crate) fn offer(&self, head: u16) {
        self.put(AVAIL + 4 + u64::from(self.index % QUEUE) * 2, &head.to_le_bytes());
        self.offer_up_to(self.index.wrapping_add(1));
    }

    /// Sets the index of the available ring, right or wrong, and kicks.
    pub(crate) fn offer_up_to(&self, index: u16) {
        // used_event: tell us of the next one.
        self.put(AVAIL + 4 + u64::from(QUEUE) * 2, &self.index.to_le_bytes());
        self.put(AVAIL + 2, &index.to_le_bytes());
        self.kick();
    }

    pub(crate) fn kick(&self) {
        self.kick.write(1).unwrap();
    }

    /// A completion counts only when it is in the ring and was told.
    pub(crate) fn outcome(&mut self, patience: Duration) -> Outcome {
        let deadline = Instant::now() + patience;
        while Instant::now() < deadline {
            let used = u16::from_le_bytes(self.get(USED + 2, 2).try_into().unwrap());
            if used != self.index && self.call.read().is_ok() {
                let at = USED + 4 + u64::from(self.index % QUEUE) * 8;
                let len = u32::from_le_bytes(self.get(at + 4, 4).try_into().unwrap());
                self.index = self.index.wrapping_add(1);
                return Outcome::Done { status: self.get(STATUS, 1)[0], len };
            }
            if self.hung_up() {
                return Outcome::HungUp;
            }
            std::thread::sleep(Duration::from_micros(50));
        }
        Outcome::Nothing
    }

    /// Whether the device has closed the connection.
    pub(crate) fn hung_up(&self) -> bool {
        let mut fds = [PollFd::new(&self.stream, PollFlags::IN)];
        rustix::event::poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })).unwrap();
        fds[0].revents().intersects(PollFlags::HUP | PollFlags::ERR)
    }
}

/// Whether one of `fds` becomes readable or hung up in time.
pub(crate) fn ready(fds: &[std::os::fd::BorrowedFd<'_>], patience: Duration) -> bool {
    let mut polled: Vec<PollFd<'_>> =
        fds.iter().map(|fd| PollFd::from_borrowed_fd(*fd, PollFlags::IN)).collect();
    let patience = Timespec::try_from(patience).unwrap();
    rustix::event::poll(&mut polled, Some(&patience)).unwrap() > 0
}

/// A pidfd of any process.
pub(crate) fn watch(pid: u32) -> OwnedFd {
    let pid = rustix::process::Pid::from_raw(pid.try_into().unwrap()).unwrap();
    rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()).unwrap()
}
