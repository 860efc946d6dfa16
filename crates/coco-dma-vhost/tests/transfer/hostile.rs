//! A device that lies, and a copy that believes none of it.
//!
//! It is this program under another name: a link to it, whose name says the trick, is started as
//! the embedded device.
// UNSAFETY: the descriptors are named on the command line.
#![expect(unsafe_code)]

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::{BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use coco_dma::regime::PlatformName;
use coco_dma_vhost::device::{Backing, Export, Keeper, Kind, Launch};
use rustix::process::Signal;
use vhost::vhost_user::Listener;
use vhost::vhost_user::message::VhostUserProtocolFeatures as Protocol;
use vhost_user_backend::{VhostUserBackend, VhostUserDaemon, VringRwLock, VringT};
use virtio_queue::desc::split::Descriptor;
use virtio_queue::{QueueOwnedT, QueueT};
use vm_memory::{
    Bytes, GuestAddress, GuestAddressSpace, GuestMemoryAtomic, GuestMemoryBackend, GuestMemoryMmap,
};
use vmm_sys_util::epoll::EventSet;
use vmm_sys_util::event::{
    EventConsumer, EventFlag, EventNotifier, new_event_consumer_and_notifier,
};

use crate::bench::{POOL, SOON, job, on, run};

const BYTES: usize = 1 << 20;

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Trick {
    ForeignRequest,
    SameRequestTwice,
    MoreThanAsked,
    LessThanAsked,
    UnknownStatus,
    IndexFarAhead,
    OtherCapacity,
    OldVirtio,
    NothingAtAll,
    Leaving,
    SomethingTyped,
    /// Serves well, but the first descriptor that is wrong it dies of: first its connections, then
    /// the process. After that it answers them with an error.
    DiesOfIt,
    /// The same, but it stops.
    StopsAtIt,
}

/// What the last one writes, whatever it says that it wrote.
pub(crate) const TYPED: &[u8] = b"typed-by-host";

/// Each trick, and what is said of it.
const TRICKS: &[(Trick, &str)] = &[
    (Trick::ForeignRequest, "it completed a request that it does not have"),
    (Trick::SameRequestTwice, "it completed a request that it does not have"),
    (Trick::MoreThanAsked, "it wrote more than it was given room for"),
    (Trick::LessThanAsked, "success for a request that it did not finish"),
    (Trick::UnknownStatus, "0x09, which is no status"),
    (Trick::IndexFarAhead, "the device broke the protocol"),
    (Trick::OtherCapacity, "it has 4294967296 sectors and the image 2048"),
    (Trick::OldVirtio, "does not offer VIRTIO_F_VERSION_1"),
    (Trick::NothingAtAll, "completed none of 4 requests within 3s"),
    (Trick::Leaving, "left with exit status 3, its last words: so long"),
];

pub(crate) fn no_trick_gets_through() {
    let dir = tempfile::tempdir().unwrap();
    for (trick, said) in TRICKS {
        let launch = launch(dir.path(), *trick);
        on(PlatformName::Tdx, POOL, |layer| {
            let begun = Instant::now();
            let mut job = job(BYTES, 4);
            // Long enough for those that do answer, on a busy machine.
            job.patience = Duration::from_secs(3);
            let mut keeper = Keeper::new(&launch);
            let error = run(layer, &mut keeper, &job).unwrap_err().to_string();
            // One that lies is believed no second time; one that is lost is tried three times.
            let tries = if error.contains("in a row") { 2 } else { 0 };
            assert_eq!(keeper.restarts(), tries, "{trick:?}: {error}");
            let lost = matches!(trick, Trick::NothingAtAll | Trick::Leaving);
            assert_eq!(tries == 2, lost, "{trick:?}: {error}");
            assert!(error.contains(said), "{trick:?}: {error}");
            assert!(begun.elapsed() < SOON, "{trick:?}: {:?}", begun.elapsed());
            assert_eq!(layer.pool().used(), 0, "{trick:?}");
        });
    }
}

/// A device with two disks that plays this trick; `dir` gets a link to this program.
pub(crate) fn launch(dir: &Path, trick: Trick) -> Launch {
    let program = dir.join(format!("{trick:?}"));
    std::os::unix::fs::symlink(std::env::current_exe().unwrap(), &program).unwrap();
    let disk = || Export { backing: Backing::Null { size: BYTES as u64 }, writable: true };
    let exports = vec![disk(), disk()];
    Launch { kind: Kind::Embedded, exports, embedded_program: Some(program) }
}

impl Trick {
    /// The trick that a program of this name plays.
    pub(crate) fn of_program(program: &OsStr) -> Option<Self> {
        let name = Path::new(program).file_name()?;
        let tricks = TRICKS.iter().map(|(trick, _)| *trick).chain([
            Self::SomethingTyped,
            Self::DiesOfIt,
            Self::StopsAtIt,
        ]);
        tricks.into_iter().find(|trick| *name == *format!("{trick:?}"))
    }
}

/// The device process.
pub(crate) fn main(trick: Trick, args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let sockets = args.into_iter().filter_map(|arg| {
        let arg = arg.into_string().ok()?;
        let fd = arg.strip_prefix("listen=")?.split(',').next()?.parse().ok()?;
        // SAFETY: the descriptor was handed down for us, and each is named once.
        Some(UnixListener::from(unsafe { OwnedFd::from_raw_fd(fd) }))
    });
    let threads: Vec<_> =
        sockets.map(|socket| std::thread::spawn(move || serve(trick, socket))).collect();
    for thread in threads {
        let _ = thread.join();
    }
    ExitCode::FAILURE
}

fn serve(trick: Trick, socket: UnixListener) {
    let mut listener = Listener::from(socket);
    loop {
        let memory = GuestMemoryAtomic::new(GuestMemoryMmap::new());
        let backend = Arc::new(Liar { trick, memory: memory.clone() });
        let mut daemon = VhostUserDaemon::new("liar".to_owned(), backend, memory).unwrap();
        daemon.start(&mut listener).unwrap();
        let _ = daemon.wait();
    }
}

struct Liar {
    trick: Trick,
    memory: GuestMemoryAtomic<GuestMemoryMmap>,
}

/// Whether nobody was here before: each process that is started asks once.
fn is_first() -> bool {
    let program = std::env::args_os().next().unwrap();
    std::fs::File::create_new(Path::new(&program).with_extension("once")).is_ok()
}

impl Liar {
    fn suffer(&self) {
        if self.trick == Trick::StopsAtIt {
            rustix::process::kill_process(rustix::process::getpid(), Signal::STOP).unwrap();
            // This thread may get a little further before it stops.
            std::thread::sleep(Duration::from_secs(60));
            return;
        }
        for fd in 3..200 {
            // SAFETY: only looked at, and this process is about to end.
            let fd = unsafe { BorrowedFd::borrow_raw(fd) };
            let _ = rustix::net::shutdown(fd, rustix::net::Shutdown::Both);
        }
        std::thread::sleep(Duration::from_millis(200));
        std::process::exit(3);
    }

    /// Answers one request, wrongly.
    fn answer(&self, vring: &VringRwLock) -> Option<()> {
        let memory = self.memory.memory();
        let mut state = vring.get_mut();
        let chain = state.get_queue_mut().iter(memory.clone()).ok()?.next()?;
        let head = chain.head_index();
        let shared = |part: &Descriptor| {
            part.len() > 0 && memory.check_range(part.addr(), part.len() as usize)
        };
        let bad = !chain.clone().all(|part| shared(&part));
        if bad && matches!(self.trick, Trick::DiesOfIt | Trick::StopsAtIt) && is_first() {
            self.suffer();
        }
        let writable = chain.filter(|part| part.is_write_only()).collect::<Vec<_>>();
        let total: u32 = writable.iter().map(|part| part.len()).sum();
        let status = writable.last()?.addr();
        let byte: u8 = match self.trick {
            Trick::UnknownStatus => 9,
            _ => u8::from(bad),
        };
        if self.trick == Trick::SomethingTyped {
            memory.write_slice(TYPED, writable.first()?.addr()).ok()?;
        }
        memory.write_obj(byte, status).ok()?;
        let mut used = |id, len| state.get_queue_mut().add_used(&*memory, id, len).ok();
        match self.trick {
            Trick::ForeignRequest => used(77, total)?,
            Trick::SameRequestTwice => {
                used(head, total)?;
                used(head, total)?;
            }
            Trick::MoreThanAsked => used(head, 1 << 31)?,
            Trick::LessThanAsked => used(head, 0)?,
            Trick::IndexFarAhead => {
                let index = GuestAddress(state.get_queue_mut().used_ring() + 2);
                memory.write_obj(5000_u16, index).ok()?;
            }
            _ => used(head, total)?,
        }
        drop(state);
        vring.signal_used_queue().ok()
    }
}

impl VhostUserBackend for Liar {
    type Bitmap = ();
    type Vring = VringRwLock;

    fn num_queues(&self) -> usize {
        1
    }

    fn max_queue_size(&self) -> usize {
        1024
    }

    fn features(&self) -> u64 {
        let version = if self.trick == Trick::OldVirtio { 0 } else { 1 << 32 };
        version | 1 << 30 | 1 << 9
    }

    fn protocol_features(&self) -> Protocol {
        Protocol::MQ | Protocol::CONFIG | Protocol::REPLY_ACK | Protocol::CONFIGURE_MEM_SLOTS
    }

    fn set_event_idx(&self, _enabled: bool) {}

    fn get_config(&self, _offset: u32, size: u32) -> Vec<u8> {
        let other = self.trick == Trick::OtherCapacity;
        let sectors: u64 = if other { 1 << 32 } else { BYTES as u64 / 512 };
        let mut config = sectors.to_le_bytes().to_vec();
        config.resize(size as usize, 0);
        config
    }

    fn update_memory(&self, _memory: GuestMemoryAtomic<GuestMemoryMmap>) -> io::Result<()> {
        Ok(())
    }

    fn exit_event(&self, _thread: usize) -> Option<(EventConsumer, EventNotifier)> {
        // Without it nobody would end the worker with its connection.
        new_event_consumer_and_notifier(EventFlag::NONBLOCK).ok()
    }

    fn handle_event(
        &self,
        _event: u16,
        _set: EventSet,
        vrings: &[VringRwLock],
        _thread: usize,
    ) -> io::Result<()> {
        match self.trick {
            Trick::NothingAtAll => {}
            Trick::Leaving => {
                eprintln!("so long");
                std::process::exit(3);
            }
            _ => {
                self.answer(&vrings[0]);
            }
        }
        Ok(())
    }
}
