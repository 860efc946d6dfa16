//! Waiting for space without a runtime: who was refused asks to be told, and whoever gives space
//! back tells once.
//!
//! It is a flag and a listener, no list of waiters: who is asleep where, and who is woken first,
//! the listener knows. The order of steps keeps anybody from sleeping through the news. Who waits
//! sets the flag first and looks for space then; who gives space back makes it visible first and
//! reads the flag then. In the one order of `SeqCst` at least one of them sees the other.
//!
//! The steps of a map that waits, here as a future's, whose waker is what the listener wakes:
//!
//! ```
//! # use std::ptr::NonNull;
//! # use std::sync::Mutex;
//! # use std::task::{Context, Poll, Waker};
//! # use coco_dma::attrs::Attrs;
//! # use coco_dma::device::Device;
//! # use coco_dma::reason::Refuse;
//! # use coco_dma::waiters::{CapacityListener, Watch};
//! # use coco_dma::state::Direction;
//! # use coco_dma::stream::RawMapping;
//! #[derive(Default)]
//! struct Wakers(Mutex<Vec<Waker>>);
//!
//! impl CapacityListener for Wakers {
//!     fn capacity(&self) {
//!         let wakers = std::mem::take(&mut *self.0.lock().unwrap());
//!         wakers.into_iter().for_each(Waker::wake);
//!     }
//! }
//!
//! /// # Safety
//! ///
//! /// As for `Device::map_raw`.
//! unsafe fn poll_map(
//!     device: &Device<'_>,
//!     wakers: &Wakers,
//!     bytes: NonNull<[u8]>,
//!     context: &mut Context<'_>,
//! ) -> Poll<Result<RawMapping, Refuse>> {
//!     let map = || unsafe { device.map_raw(bytes, Direction::ToDevice, Attrs::NONE) };
//!     let refused = match map() {
//!         Ok(mapping) => return Poll::Ready(Ok(mapping)),
//!         Err(error) => error.reason,
//!     };
//!     // First into the list, then ask.
//!     wakers.0.lock().unwrap().push(context.waker().clone());
//!     match (device.watch_capacity(refused), map()) {
//!         (_, Ok(mapping)) => Poll::Ready(Ok(mapping)),
//!         (Watch::Never, Err(error)) => Poll::Ready(Err(error.reason)),
//!         (Watch::Set, Err(error)) if error.reason == refused => Poll::Pending,
//!         // Not to sleep yet, or refused for something else by now.
//!         (Watch::Set | Watch::Retry, Err(_)) => {
//!             context.waker().wake_by_ref();
//!             Poll::Pending
//!         }
//!     }
//! }
//! ```

#[cfg(all(test, loom))]
mod models;

use core::fmt;

use crate::word::AtomicUsize;
use crate::word::Ordering;
use crate::word::fence;
use crate::word::fence_for_models;

/// Is told that there may be space again: in a pool
/// ([`Pool::with_listener`](crate::pool::Pool::with_listener)), in the quota of a device
/// ([`Endpoint::listener`](crate::device::Endpoint::listener)), or in an IOMMU domain
/// ([`Domain::with_listener`](crate::iommu::Domain::with_listener)).
///
/// It is called once for everybody who asked since the last call, and then no more until somebody
/// asks again. So wake all that wait; or wake the one that has waited longest, and have that one
/// wake the next when it has its space or gives up. Another thread may have been faster, or the
/// space may be too little: who still wants it asks again.
pub trait CapacityListener: Sync {
    /// There may be space. Called in the context of whoever gave it back, an interrupt included,
    /// from within any call of the layer that gives something back (also a map that is refused, and
    /// the asking itself). It must not block and must not call the layer; a lock that it takes must
    /// not be held by anybody who calls the layer.
    fn capacity(&self);
}

/// What came of asking to be told of space.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "who sleeps when nobody will tell sleeps for ever"]
pub enum Watch {
    /// The listener will be called when space is given back. Try once more, since some may have
    /// been given back before; if that is refused too, sleep.
    Set,
    /// Some CPU kept space, which all can have now, or is in the middle of a map or a finish. Try
    /// again now or soon, and sleep only after another answer. (From an interrupt it may be the
    /// CPU's own map that was interrupted: then the answer stays until the interrupt has returned.)
    Retry,
    /// Nobody would tell: a listener is missing, or it was not for space that the map was refused.
    Never,
}

impl Watch {
    /// What two of which either may have space answer together.
    pub(crate) fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::Never, _) | (_, Self::Never) => Self::Never,
            (Self::Retry, _) | (_, Self::Retry) => Self::Retry,
            (Self::Set, Self::Set) => Self::Set,
        }
    }
}

/// Who is told, if anybody.
#[derive(Clone, Copy)]
pub(crate) struct Listener<'m>(pub(crate) Option<&'m dyn CapacityListener>);

impl fmt::Debug for Listener<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Listener").field(&self.0.is_some()).finish()
    }
}

/// Whether somebody wants to be told, and who is.
#[derive(Debug)]
pub(crate) struct Waiters<'m> {
    /// 1 from the asking to the telling.
    wanted: AtomicUsize,
    listener: Listener<'m>,
}

impl<'m> Waiters<'m> {
    /// Nobody waits yet.
    pub(crate) fn new(listener: Listener<'m>) -> Self {
        Self { wanted: AtomicUsize::new(0), listener }
    }

    /// Somebody waits from now on: whoever gives back what the caller does not see from now on
    /// will tell, if anybody can.
    pub(crate) fn ask(&self) -> Watch {
        if self.listener.0.is_none() {
            return Watch::Never;
        }
        // Release, too: who tells sees what the caller did before, as to enter itself in a list.
        self.wanted.swap(1, Ordering::SeqCst);
        // The looks that follow are relaxed.
        fence(Ordering::SeqCst);
        Watch::Set
    }

    /// Whether somebody wants to be told: to be read after what was given back can be seen, and by
    /// a step in the one order (or in a turn to use a cache, see [`Slots::watch`]).
    ///
    /// [`Slots::watch`]: crate::slots::Slots::watch
    #[inline]
    pub(crate) fn wanted(&self) -> bool {
        self.wanted.load(Ordering::SeqCst) != 0
    }

    /// Tells whoever wants to be told that something was given back, by a step of `SeqCst`.
    #[inline]
    pub(crate) fn given(&self) {
        fence_for_models();
        if self.wanted() {
            self.notify();
        }
    }

    #[cold]
    #[inline(never)]
    fn notify(&self) {
        // Of several one tells. Acquire: pairs with the asking.
        if self.wanted.swap(0, Ordering::AcqRel) != 0
            && let Some(listener) = self.listener.0
        {
            listener.capacity();
        }
    }
}
