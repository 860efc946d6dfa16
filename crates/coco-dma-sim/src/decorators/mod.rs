//! What stands around a platform, and is one: scripted failures, a log, an account, an enemy. Each
//! owns what it stands around; a [`Machine`](crate::Machine) is a handle, so that a test keeps one
//! for itself.

mod accounted;
mod adversary;
mod faulty;
mod partial;
mod traced;

pub use accounted::Account;
pub use accounted::Accounted;
pub use accounted::Crossing;
pub use adversary::Adversary;
pub use adversary::Malice;
pub use faulty::ConvertFault;
pub use faulty::Faulty;
pub use faulty::Really;
pub use faulty::Refusal;
pub use traced::Call;
pub use traced::Traced;

use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;

/// Locks what a test that failed in another thread may have held: nothing is left half done.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
