//! What one machine has: the platform, its rules, its books, its pools, and who listens. The
//! floors above do things with it: [`convert`](crate::convert) changes who may see memory, and
//! [`device`](crate::device) binds devices.

use core::fmt;

use crate::addr::PhysAddr;
use crate::addr::PhysRange;
use crate::ledger::Ledger;
use crate::observe::Event;
use crate::observe::Fault;
use crate::observe::Observer;
use crate::platform::PageSource;
use crate::platform::Platform;
use crate::pool::Owner;
use crate::pool::Pool;
use crate::regime::Regime;
use crate::word::AtomicUsize;
use crate::word::Ordering;

/// The number of the next device of any layer in this program, so that devices of two layers over
/// one pool are told apart. (No model looks at it: a plain word under loom too.)
static DEVICES: core::sync::atomic::AtomicUsize = core::sync::atomic::AtomicUsize::new(1);

/// The unit in which the place of the next retry is kept, in bytes: a word of 32 bits then counts
/// past all memory that such a machine has.
const RETRY_PAGE: u64 = 4096;

/// The layer on one machine. It is a value: make one, keep it where every driver finds it, a
/// `static` if you like.
pub struct Dma<'m, P: Platform + ?Sized = dyn Platform + 'm> {
    platform: &'m P,
    regime: Regime,
    pools: &'m [Pool<'m>],
    ledger: Ledger<'m>,
    pages: Option<&'m dyn PageSource>,
    observer: Option<&'m dyn Observer>,
    /// Whether the observer hears of every map.
    tells_maps: bool,
    peers: &'m [PhysRange],
    quarantine_limit: u64,
    /// Where the next round of retries begins: a number of [`RETRY_PAGE`]s.
    retry_page: AtomicUsize,
    faults: AtomicUsize,
    /// 1 while nothing may be shared.
    stopped: AtomicUsize,
}

impl<'m, P: Platform + ?Sized> Dma<'m, P> {
    /// The layer on `platform`, with the pools that every device may use unless it is restricted
    /// to its own. Asks for the regime once; never blocks.
    pub fn new(platform: &'m P, pools: &'m [Pool<'m>]) -> Self {
        Self {
            platform,
            regime: platform.regime(),
            pools,
            ledger: Ledger::EMPTY,
            pages: None,
            observer: None,
            tells_maps: false,
            peers: &[],
            quarantine_limit: u64::MAX,
            retry_page: AtomicUsize::new(0),
            faults: AtomicUsize::new(0),
            stopped: AtomicUsize::new(0),
        }
    }

    /// With the books of memory. Without them all memory outside of pools is untracked, its state
    /// is what the attributes say, and nothing can be converted.
    #[must_use]
    pub fn with_ledger(self, ledger: Ledger<'m>) -> Self {
        Self { ledger, ..self }
    }

    /// With a source of pages for coherent memory. Without one it comes from pools.
    #[must_use]
    pub fn with_pages(self, pages: &'m dyn PageSource) -> Self {
        Self { pages: Some(pages), ..self }
    }

    /// With a listener. It is asked here, once, whether it wants to hear of every map.
    #[must_use]
    pub fn with_observer(self, observer: &'m dyn Observer) -> Self {
        Self { observer: Some(observer), tells_maps: observer.wants_maps(), ..self }
    }

    /// With the ranges of device memory that drivers may name to other devices (peer-to-peer: what
    /// Linux's `p2pdma` providers register). A map of a part of one is decided as that.
    #[must_use]
    pub fn with_peers(self, peers: &'m [PhysRange]) -> Self {
        Self { peers, ..self }
    }

    /// With a limit of bytes in quarantine: past it nothing is converted any more, so that a
    /// hostile host cannot drain all memory by failing conversions (default: none).
    #[must_use]
    pub fn with_quarantine_limit(self, bytes: u64) -> Self {
        Self { quarantine_limit: bytes, ..self }
    }

    /// The books of memory.
    pub fn ledger(&self) -> &Ledger<'m> {
        &self.ledger
    }

    /// The memory of devices that drivers may name to others.
    pub(crate) fn peers(&self) -> &'m [PhysRange] {
        self.peers
    }

    /// Whether some of this is a peer's memory.
    #[inline]
    pub(crate) fn is_peers(&self, range: PhysRange) -> bool {
        self.peers.iter().any(|peer| peer.overlaps(range))
    }

    /// The machine's pools.
    pub fn pools(&self) -> &'m [Pool<'m>] {
        self.pools
    }

    /// The most bytes that may be in quarantine.
    pub fn quarantine_limit(&self) -> u64 {
        self.quarantine_limit
    }

    /// The source of pages of our own.
    pub(crate) fn pages(&self) -> Option<&'m dyn PageSource> {
        self.pages
    }

    /// The number of the next device.
    pub(crate) fn next_owner(&self) -> Option<Owner> {
        let number = DEVICES.load(Ordering::Relaxed);
        let taken =
            if number > Owner::MOST { number } else { DEVICES.fetch_add(1, Ordering::Relaxed) };
        Owner::new(taken)
    }

    /// Where the next round of retries begins.
    pub(crate) fn retry_from(&self) -> PhysAddr {
        PhysAddr::new((self.retry_page.load(Ordering::Relaxed) as u64).saturating_mul(RETRY_PAGE))
    }

    /// It begins there from now on. A hint: an address that does not fit is the start of memory,
    /// and of two rounds at once the later one counts.
    pub(crate) fn retry_from_now_on(&self, at: PhysAddr) {
        let page = usize::try_from(at.raw().div_ceil(RETRY_PAGE)).unwrap_or(0);
        self.retry_page.store(page, Ordering::Relaxed);
    }

    /// From now on nothing is shared. A step of its own, as [`may_share`](Self::may_share) is: of
    /// the two one comes first. Either whoever shares sees this, or whoever stopped it sees in the
    /// ledger, after this, that a conversion began.
    pub(crate) fn stop_sharing(&self) {
        self.stopped.swap(1, Ordering::AcqRel);
    }

    /// Ends what [`walk_back`](Self::walk_back) or [`reclaim_all`](Self::reclaim_all) began: memory
    /// may be shared again, and pools grow. For a machine that sleeps and wakes, or a kexec that is
    /// called off. Any context.
    pub fn allow_sharing(&self) {
        self.stopped.swap(0, Ordering::AcqRel);
    }

    /// Whether memory may be shared: asked by whoever has begun a conversion, and before anything
    /// of it is done.
    pub(crate) fn may_share(&self) -> bool {
        self.stopped.fetch_add(0, Ordering::AcqRel) == 0
    }

    /// An IOMMU refused an access of a device: called by the machine's fault handler, with what
    /// it decoded. Counts it, and tells the listener. Any context.
    pub fn fault(&self, fault: &Fault) {
        self.faults.fetch_add(1, Ordering::Relaxed);
        self.notify(&Event::Fault(*fault));
    }

    /// Faults that were told so far.
    pub fn faults(&self) -> usize {
        self.faults.load(Ordering::Relaxed)
    }

    /// Whether somebody listens.
    #[inline]
    pub(crate) fn is_observed(&self) -> bool {
        self.observer.is_some()
    }

    /// Whether the listener hears of every map.
    #[inline]
    pub(crate) fn tells_maps(&self) -> bool {
        self.tells_maps
    }

    /// Tells the listener.
    #[inline]
    pub(crate) fn notify(&self, event: &Event<'_>) {
        if let Some(observer) = self.observer {
            observer.event(event);
        }
    }

    /// The rules of this machine.
    pub fn regime(&self) -> &Regime {
        &self.regime
    }

    /// The machine under the layer.
    pub fn platform(&self) -> &'m P {
        self.platform
    }
}

impl<P: Platform + ?Sized> fmt::Debug for Dma<'_, P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Dma")
            .field("regime", &self.regime)
            .field("pools", &self.pools)
            .finish_non_exhaustive()
    }
}
