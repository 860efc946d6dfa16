//! What is measured side by side: the reference, and what the core offers.

mod offered;
mod pool;
mod reference;
mod whole;

pub use offered::OFFERED;
pub use offered::Visit;
pub(crate) use offered::suits;
pub use offered::with;
pub use reference::Linux;
