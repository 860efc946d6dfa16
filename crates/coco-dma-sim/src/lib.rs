//! Whole machines for tests: RAM that a guest, a host and devices look at with different rights.
//!
//! A [`Machine`] has real memory behind physical addresses, and the true state of each granule of
//! it. What the layer under test says or believes never enters: a test asks the machine what the
//! host saw ([`Machine::host_read`], [`Machine::search`]), what it could ever have seen
//! ([`Machine::watch_for`]), what a device got ([`SimDevice`]), and what the layer did that no
//! machine would forgive ([`Machine::violations`]). Machines know nothing of `plan`, and neither
//! of the codecs of `coco_dma::regime`: what an address means to a device stands in a table of
//! their own, so that a form that is wrong on both sides of the layer still misses the memory.
//!
//! ```
//! use coco_dma::platform::Platform;
//! use coco_dma::regime::PlatformName;
//! use coco_dma::state::State;
//! use coco_dma_sim::{Machine, Outcome};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let machine = Machine::builder(PlatformName::Tdx).ram(0x4000_0000, 1 << 20).build()?;
//! let run = machine.take(4096)?;
//! let mut seen = [0; 16];
//! assert_eq!(machine.host_read(run.base(), &mut seen), Outcome::Fault);
//! // SAFETY: nobody else uses the run.
//! unsafe { machine.convert(run, State::PRIVATE, State::SHARED)? };
//! assert_eq!(machine.host_read(run.base(), &mut seen), Outcome::Clear);
//! # Ok(())
//! # }
//! ```
//!
//! [`Faulty`], [`Traced`], [`Accounted`] and [`Adversary`] stand around any
//! [`Platform`](coco_dma::platform::Platform), and around each other. All is deterministic: what
//! looks random comes from seeds, and there is no clock.
//!
//! A machine may be used by several threads. A device or host that touches bytes at the moment
//! when another thread touches them is a data race like any other: the test keeps them apart.

mod backing;
mod decorators;
mod device;
mod eye;
mod hardware;
mod iommu;
mod machine;
mod noise;
mod number;
mod ram;

pub use decorators::Account;
pub use decorators::Accounted;
pub use decorators::Adversary;
pub use decorators::Call;
pub use decorators::ConvertFault;
pub use decorators::Crossing;
pub use decorators::Faulty;
pub use decorators::Malice;
pub use decorators::Really;
pub use decorators::Refusal;
pub use decorators::Traced;
pub use device::Access;
pub use device::SimDevice;
pub use eye::HostRun;
pub use eye::Leak;
pub use eye::Moment;
pub use eye::Step;
pub use hardware::Effect;
pub use hardware::OnPrivate;
pub use iommu::IommuMistake;
pub use iommu::SimEntry;
pub use iommu::SimIommu;
pub use iommu::StaleEntries;
pub use machine::BuildError;
pub use machine::Builder;
pub use machine::CpuMapping;
pub use machine::GuestBuffer;
pub use machine::Machine;
pub use machine::MachineCounts;
pub use machine::NoMemory;
pub use machine::PoolMemory;
pub use machine::Violation;
pub use machine::code;
pub use noise::Rng;
pub use noise::marker;
pub use ram::GranuleState;
pub use ram::Outcome;
