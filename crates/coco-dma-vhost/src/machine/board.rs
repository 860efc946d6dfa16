//! Who has been given what: the devices at the other ends of connections, and the regions that
//! change hands at run time.
//!
//! Every peer always has all regions that are shared: it is told of those that there are when it
//! is introduced, and of every change from then on. A peer that does not do as it is told is cut
//! off, which it cannot turn back; what it had mapped of a region is no memory of ours any more
//! (see [`patches`](crate::memory)).

use std::os::fd::BorrowedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use coco_dma::addr::{DmaAddr, PhysRange};
use coco_dma::platform::ConvertError;

use crate::memory::{Lost, MemoryError, Patch, Patches, SharedRegion};
use core::ptr::NonNull;

/// Where the front-end addresses of the pool start. Like guest addresses they are invented: a
/// device is told nothing of where anything lies in this process.
const POOL_FRONT: u64 = 0x1000_0000_0000;
/// Where those of the regions start.
const REGIONS_FRONT: u64 = 0x2000_0000_0000;

/// One shared region as a device is told of it: descriptors name its memory by the DMA form, rings
/// by front-end addresses.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Window<'w> {
    pub(crate) dma: u64,
    pub(crate) len: u64,
    pub(crate) front: u64,
    pub(crate) file: BorrowedFd<'w>,
}

impl<'w> Window<'w> {
    /// That of the pool.
    pub(crate) fn of_pool(region: &'w SharedRegion, range: PhysRange, dma: DmaAddr) -> Self {
        Self { dma: dma.raw(), len: range.len(), front: POOL_FRONT, file: region.file() }
    }

    /// The front-end address of what the device sees at `address`.
    pub(crate) fn front_of(&self, address: u64) -> Option<u64> {
        let at = address.checked_sub(self.dma)?;
        (at < self.len).then_some(self.front.checked_add(at)?)
    }
}

/// A device at the other end of a connection. Each call blocks, for seconds at most.
pub(crate) trait Peer: Send + Sync {
    /// How many windows it takes, the pool's among them.
    fn limit(&self) -> u64;
    /// Gives it one window more; an error is a number of the kernel's.
    fn add(&self, window: &Window<'_>) -> Result<(), i32>;
    /// Takes one away. When this returns well, the device has it mapped no more.
    fn remove(&self, window: &Window<'_>) -> Result<(), i32>;
    /// Ends the connection for good.
    fn cut_off(&self);
    /// Whether that has happened.
    fn is_cut_off(&self) -> bool;
}

/// The board.
pub(super) struct Board(Mutex<State>);

#[derive(Default)]
struct State {
    peers: Vec<Arc<dyn Peer>>,
    /// What lies in each region.
    patches: Vec<Patch>,
}

/// Where the regions lie; the [`Board`] knows their states.
#[derive(Debug)]
pub(super) struct Regions {
    patches: Patches,
    /// All of them, side by side.
    pub(super) range: PhysRange,
    dma: DmaAddr,
}

impl Regions {
    /// `range` has room for `count` regions of `size` bytes; an untrusted device sees it at `dma`.
    pub(super) fn new(
        count: usize,
        size: usize,
        range: PhysRange,
        dma: DmaAddr,
    ) -> Result<Self, MemoryError> {
        Ok(Self { patches: Patches::new(count, size)?, range, dma })
    }

    /// Bytes of a region.
    pub(super) fn size(&self) -> usize {
        self.patches.size()
    }

    /// Where they start in this process.
    pub(super) fn start(&self) -> NonNull<u8> {
        self.patches.start()
    }

    /// How far into them `bytes` start.
    pub(super) fn offset_of(&self, bytes: NonNull<[u8]>) -> Option<usize> {
        self.patches.offset_of(bytes)
    }

    /// The first region of `run` and how many it touches, where it lies in them.
    fn touched(&self, run: PhysRange) -> Option<core::ops::Range<usize>> {
        let within = self.range.contains(run);
        let at = usize::try_from(run.base().offset_from(self.range.base())?).ok()?;
        let end = at.checked_add(usize::try_from(run.len()).ok()?)?;
        within.then(|| at / self.size()..end.div_ceil(self.size()))
    }

    /// As [`touched`](Self::touched), for runs of whole regions.
    fn whole(&self, run: PhysRange) -> Option<core::ops::Range<usize>> {
        let touched = self.touched(run)?;
        let len = (touched.len() as u64).checked_mul(self.size() as u64)?;
        let at = run.base().offset_from(self.range.base())?;
        (len == run.len() && at.is_multiple_of(self.size() as u64)).then_some(touched)
    }

    fn window<'w>(&self, number: usize, file: BorrowedFd<'w>) -> Window<'w> {
        let (len, at) = (self.size() as u64, number as u64 * self.size() as u64);
        // Below the end of the regions, all of which have addresses.
        let dma = self.dma.raw().wrapping_add(at);
        Window { dma, len, front: REGIONS_FRONT + at, file }
    }
}

impl Board {
    /// A board for this many regions, all of them private.
    pub(super) fn new(regions: usize) -> Self {
        let patches = (0..regions).map(|_| Patch::Private).collect();
        Self(Mutex::new(State { peers: Vec::new(), patches }))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Introduces a peer: `tell` gives it the windows that there are, the pool's first, while none
    /// can come or go. After an error the peer knows nothing of what comes.
    pub(super) fn introduce<E>(
        &self,
        peer: Arc<dyn Peer>,
        pool: Window<'_>,
        regions: Option<&Regions>,
        tell: impl FnOnce(&[Window<'_>]) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut state = self.lock();
        state.with_windows(pool, regions, tell)?;
        if !state.peers.iter().any(|other| is_same(other, &peer)) {
            state.peers.push(peer);
        }
        Ok(())
    }

    /// Forgets a peer whose connection has ended.
    pub(super) fn forget(&self, peer: &Arc<dyn Peer>) {
        self.lock().peers.retain(|other| !is_same(other, peer));
    }

    /// Runs `look` with the windows that there are.
    pub(super) fn windows<R>(
        &self,
        pool: Window<'_>,
        regions: Option<&Regions>,
        look: impl FnOnce(&[Window<'_>]) -> R,
    ) -> R {
        self.lock().with_windows(pool, regions, look)
    }

    /// Whether all of `run` is shared now (or private).
    pub(super) fn is(&self, regions: &Regions, run: PhysRange, shared: bool) -> bool {
        let state = self.lock();
        let part = regions.touched(run).and_then(|touched| state.patches.get(touched));
        part.is_some_and(|part| {
            part.iter().all(|patch| match patch {
                Patch::Private => !shared,
                Patch::Shared(_) => shared,
                Patch::Unknown => false,
            })
        })
    }

    /// Gives regions to all peers, one after the other, or takes them away from all. The error
    /// counts whole regions; what is in doubt is one whose memory the kernel failed to replace.
    pub(super) fn convert(
        &self,
        regions: &Regions,
        run: PhysRange,
        share: bool,
    ) -> Result<(), ConvertError> {
        let size = regions.size() as u64;
        let numbers = regions.whole(run).ok_or(failure(0, 0, libc::EINVAL))?;
        let mut state = self.lock();
        if share && !state.has_room_for(&numbers) {
            // Never one too many: qemu-storage-daemon says that all is well, and hangs up.
            return Err(failure(0, 0, libc::ENOSPC));
        }
        for (done, number) in numbers.enumerate() {
            let changed =
                if share { state.share(regions, number) } else { state.reclaim(regions, number) };
            changed.map_err(|(doubt, code)| {
                failure(done as u64 * size, if doubt { size } else { 0 }, code)
            })?;
        }
        Ok(())
    }
}

impl State {
    fn with_windows<R>(
        &self,
        pool: Window<'_>,
        regions: Option<&Regions>,
        look: impl FnOnce(&[Window<'_>]) -> R,
    ) -> R {
        let shared = regions.into_iter().flat_map(|regions| {
            let files = self.patches.iter().enumerate();
            files.filter_map(|(number, patch)| Some(regions.window(number, patch.file()?)))
        });
        look(&[pool].into_iter().chain(shared).collect::<Vec<_>>())
    }

    /// Whether every peer takes the regions of `numbers` that it has not yet.
    fn has_room_for(&self, numbers: &core::ops::Range<usize>) -> bool {
        let shared = self.patches.iter().filter(|patch| patch.file().is_some()).count();
        let new = self.patches.get(numbers.clone()).unwrap_or(&[]);
        let new = new.iter().filter(|patch| patch.file().is_none()).count();
        // The pool is one more.
        let wanted = (1 + shared + new) as u64;
        self.connected().all(|peer| wanted <= peer.limit())
    }

    fn connected(&self) -> impl Iterator<Item = &Arc<dyn Peer>> {
        self.peers.iter().filter(|peer| !peer.is_cut_off())
    }

    /// The error says whether the region is in doubt.
    fn share(&mut self, regions: &Regions, number: usize) -> Result<(), (bool, i32)> {
        if !matches!(self.patches.get(number), Some(Patch::Private)) {
            return Err((false, libc::EINVAL));
        }
        let file = match regions.patches.share(number) {
            Ok(file) => file,
            Err(Lost::Nothing(error)) => return Err((false, code(&error))),
            Err(Lost::Everything(error)) => {
                self.put(number, Patch::Unknown);
                return Err((true, code(&error)));
            }
        };
        self.put(number, Patch::Shared(file));
        let refused = self.told(regions, number, |peer, window| peer.add(window));
        match refused {
            None => Ok(()),
            // All or nobody: it is taken back from those that had it already.
            Some(code) => Err((self.reclaim(regions, number).is_err(), code)),
        }
    }

    /// Whatever the peers say, the memory is replaced: then it is private. Only the kernel can
    /// put that in doubt.
    fn reclaim(&mut self, regions: &Regions, number: usize) -> Result<(), (bool, i32)> {
        if matches!(self.patches.get(number), Some(Patch::Private)) {
            return Ok(());
        }
        let _ = self.told(regions, number, |peer, window| peer.remove(window));
        let replaced = regions.patches.reclaim(number);
        let patch = if replaced.is_ok() { Patch::Private } else { Patch::Unknown };
        self.put(number, patch);
        replaced.map_err(|error| (true, code(&error)))
    }

    /// Tells every peer of a region; one that fails is cut off, and the first failure answered.
    fn told(
        &self,
        regions: &Regions,
        number: usize,
        tell: impl Fn(&dyn Peer, &Window<'_>) -> Result<(), i32>,
    ) -> Option<i32> {
        let file = self.patches.get(number)?.file()?;
        let window = regions.window(number, file);
        let mut first = None;
        for peer in self.connected() {
            if let Err(code) = tell(peer.as_ref(), &window) {
                peer.cut_off();
                first.get_or_insert(code);
            }
        }
        first
    }

    fn put(&mut self, number: usize, patch: Patch) {
        if let Some(place) = self.patches.get_mut(number) {
            *place = patch;
        }
    }
}

fn is_same(one: &Arc<dyn Peer>, other: &Arc<dyn Peer>) -> bool {
    core::ptr::addr_eq(Arc::as_ptr(one), Arc::as_ptr(other))
}

fn code(error: &std::io::Error) -> i32 {
    error.raw_os_error().unwrap_or(libc::EIO)
}

fn failure(done: u64, doubt: u64, code: i32) -> ConvertError {
    ConvertError { done, doubt, code: u64::from(code.unsigned_abs()) }
}

impl core::fmt::Debug for Board {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let state = self.lock();
        let shared = state.patches.iter().filter(|patch| patch.file().is_some()).count();
        f.debug_struct("Board").field("peers", &state.peers.len()).field("shared", &shared).finish()
    }
}

#[cfg(test)]
mod tests;
