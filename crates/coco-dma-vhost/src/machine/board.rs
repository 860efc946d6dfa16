//! Who has been given what: the devices at the other ends of connections, and the regions that
//! change hands at run time.
//!
//! Every peer always has all regions that are shared: it is told of those that there are when it
//! is introduced, and of every change from then on. A peer that does not do as it is told is cut
//! off, which it cannot turn back; what it had mapped of a region is no memory of ours any more
//! (see [`patches`](crate::memory)).

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use coco_dma::addr::PhysRange;
use coco_dma::platform::ConvertError;
use coco_dma::platform::ConvertVerdict;

use super::peer::{Peer, Window};
use super::regions::Regions;
use crate::memory::{Lost, Patch};

/// The board.
pub(super) struct Board(Mutex<State>);

#[derive(Default)]
struct State {
    peers: Vec<Arc<dyn Peer>>,
    /// What lies in each region.
    patches: Vec<Patch>,
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
    ConvertError {
        done,
        doubt,
        code: u64::from(code.unsigned_abs()),
        verdict: ConvertVerdict::Retry,
    }
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
