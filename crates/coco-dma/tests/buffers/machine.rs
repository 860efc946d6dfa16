//! A machine of a few lines: memory of this process as private memory, a leaked array as the one
//! pool, and a device that reaches the pool alone, or, where a map lets it, the bytes located last.
// UNSAFETY: the test is the platform, and it is the device.
#![expect(unsafe_code)]

use std::ptr::NonNull;
use std::sync::Mutex;
use std::sync::atomic::AtomicPtr;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::SeqCst;

use coco_dma::Dma;
use coco_dma::Word;
use coco_dma::addr::DmaAddr;
use coco_dma::addr::PhysAddr;
use coco_dma::addr::PhysRange;
use coco_dma::device::Attested;
use coco_dma::device::Device;
use coco_dma::device::Endpoint;
use coco_dma::plan::Limits;
use coco_dma::platform::Platform;
use coco_dma::pool::Pool;
use coco_dma::regime::Parameters;
use coco_dma::regime::PlatformName;
use coco_dma::regime::Regime;
use coco_dma::state::Direction;
use coco_dma::state::PoolLabel;

/// Private memory lies this far above its pointers, the pool below: they never meet.
const PRIVATE: u64 = 1 << 48;
const POOL: u64 = 0x8000_0000;
pub(crate) const POOL_LEN: usize = 64 * 1024;

/// What the pool holds before anybody uses it: some earlier owner's bytes.
pub(crate) const OLD: u8 = 0xee;

/// The machine, which lives as long as the program.
#[derive(Debug)]
pub(crate) struct Machine {
    regime: Regime,
    located: AtomicPtr<u8>,
    located_len: AtomicUsize,
    pool: AtomicPtr<u8>,
    handed: Mutex<Option<Direction>>,
}

// SAFETY: the regime is fixed; bytes lie at their address plus a constant; nothing converts, and
// there are no views.
unsafe impl Platform for Machine {
    fn regime(&self) -> Regime {
        self.regime
    }

    fn locate(&self, bytes: NonNull<[u8]>) -> Option<PhysRange> {
        self.located.store(bytes.as_ptr().cast(), SeqCst);
        self.located_len.store(bytes.len(), SeqCst);
        let base = PRIVATE + u64::try_from(bytes.addr().get()).ok()?;
        PhysRange::new(PhysAddr::new(base), u64::try_from(bytes.len()).ok()?)
    }

    fn sync_for_device(&self, _: NonNull<[u8]>, direction: Direction, _: bool) {
        *self.handed.lock().unwrap() = Some(direction);
    }
}

/// A device on a machine, and what a test looks at.
#[derive(Debug)]
pub(crate) struct Bench {
    pub(crate) machine: &'static Machine,
    pub(crate) pool: &'static Pool<'static>,
    pub(crate) device: Device<'static, Machine>,
}

impl Bench {
    /// A guest (or open machine) of this name with a pool of this label. Everything is leaked, so
    /// that what a test loses is lost as on a real machine.
    pub(crate) fn new(platform: &str, label: PoolLabel, accepted: bool) -> Self {
        let regime = PlatformName::from_name(platform).unwrap();
        let regime = regime.regime(&Parameters::default()).unwrap();
        let memory = Box::leak(vec![OLD; POOL_LEN].into_boxed_slice());
        let memory = NonNull::from(memory).cast::<u8>();
        let words: Vec<_> = (0..Pool::words(POOL_LEN as u64)).map(|_| Word::new()).collect();
        let range = PhysRange::new(PhysAddr::new(POOL), POOL_LEN as u64).unwrap();
        // SAFETY: the memory is there for good and used by nobody else; its state is make-believe.
        let pool = unsafe { Pool::adopt(label, range, memory, Box::leak(words.into())) }.unwrap();
        let machine = Box::leak(Box::new(Machine {
            regime,
            located: AtomicPtr::default(),
            located_len: AtomicUsize::default(),
            pool: AtomicPtr::new(memory.as_ptr()),
            handed: Mutex::new(None),
        }));
        let pools = Box::leak(Box::new([pool]));
        let dma = Box::leak(Box::new(Dma::new(&*machine, &*pools)));
        let mut endpoint = Endpoint::new("disk");
        if accepted {
            // SAFETY: the device is make-believe.
            endpoint = endpoint.accepted(unsafe { Attested::vouch() });
        }
        let device = dma.bind(endpoint, Limits::mask_bits(64)).unwrap();
        Self { machine, pool: &pools[0], device }
    }

    /// A TDX guest with an untrusted device: everything is bounced.
    pub(crate) fn guest() -> Self {
        Self::new("tdx", PoolLabel::GuestShared, false)
    }

    /// The device reads.
    pub(crate) fn sees(&self, addr: DmaAddr, len: usize) -> Vec<u8> {
        let from = self.machine.reach(addr, len);
        let mut bytes = vec![0; len];
        // SAFETY: the bytes are in the pool or in a buffer that is mapped now.
        unsafe { from.copy_to_nonoverlapping(bytes.as_mut_ptr(), len) };
        bytes
    }

    /// The device writes.
    pub(crate) fn writes(&self, addr: DmaAddr, bytes: &[u8]) {
        let to = self.machine.reach(addr, bytes.len());
        // SAFETY: as above.
        unsafe { to.copy_from_nonoverlapping(bytes.as_ptr(), bytes.len()) };
    }
}

impl Machine {
    /// Which way the bytes go that were handed over last.
    pub(crate) fn handed_over(&self) -> Option<Direction> {
        *self.handed.lock().unwrap()
    }

    /// Where an address of the device leads.
    fn reach(&self, addr: DmaAddr, len: usize) -> *mut u8 {
        let located = self.located.load(SeqCst);
        let private = PRIVATE + u64::try_from(located.addr()).unwrap();
        let (start, base, size) = match addr.raw().checked_sub(private) {
            Some(_) => (located, private, self.located_len.load(SeqCst)),
            None => (self.pool.load(SeqCst), POOL, POOL_LEN),
        };
        let offset = usize::try_from(addr.raw().checked_sub(base).unwrap()).unwrap();
        assert!(offset + len <= size, "{addr} is nothing that the device reaches");
        // SAFETY: the offset lies inside, as was just looked at.
        unsafe { start.add(offset) }
    }
}

/// Every direction.
pub(crate) const DIRECTIONS: [Direction; 3] =
    [Direction::ToDevice, Direction::FromDevice, Direction::Both];
