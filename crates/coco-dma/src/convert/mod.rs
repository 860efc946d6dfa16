//! Conversion: changing who may see memory, as a transaction.
//!
//! The order is always the same: the ledger takes the run out of use, what must not leak is
//! wiped, the platform converts, the memory is initialised in its new state, and only then does
//! the ledger put it into use again. Whatever is in doubt after a failure goes to quarantine and
//! is handed out again only after a retry proved its state.
//!
//! Everything here may block (a conversion calls the hypervisor and flushes TLBs), and none of it
//! is ever called from a map. Before another kernel takes over, or the machine sleeps, everything
//! that is shared is taken back ([`Dma::reclaim_all`](crate::Dma::reclaim_all)).

mod error;
#[cfg(all(test, loom))]
mod models;
mod pools;
mod retry;
mod transaction;
mod walk;

pub use error::ConvertErrorKind;
pub use error::ConvertFailed;
pub use pools::GrowFailed;
pub use pools::ShrinkFailed;
pub use retry::Retried;
pub use walk::Account;
pub use walk::Walk;
pub use walk::Walked;
