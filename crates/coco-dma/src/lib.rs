//! The DMA-mapping layer for confidential computing.
//!
//! A confidential guest keeps its memory private; a device of the untrusted host reaches only what
//! the guest has shared. For every buffer this layer decides whether the device may touch it where
//! it lies, whether its bytes go through a pool that the device reaches, or whether it is refused;
//! and it does the work. It needs no allocator, no lock, no thread and no dependency.
//!
//! # From the top
//!
//! A kernel author implements [`platform::Platform`] for the machine, hands over storage as
//! [`Word`]s, and makes one [`Dma`]. Bus code describes each device as a [`device::Endpoint`], its
//! driver adds [`plan::Limits`], and [`Dma::bind`] makes the [`device::Device`] of both: immutable,
//! shared by reference, and the thing that everything is done with.
//!
//! | to | use | may block |
//! |---|---|---|
//! | lend a buffer to the device for one transfer | [`Device::map`](device::Device::map), [`Device::with_mapped`](device::Device::with_mapped); raw: [`Device::map_raw`](device::Device::map_raw) | never |
//! | lend many at once | [`Device::map_list`](device::Device::map_list) | never |
//! | keep memory that both use, as rings are | [`Device::alloc`](device::Device::alloc) | not in atomic context |
//! | keep many small things of one kind, as descriptors are | [`coherent::ObjectPool`] | where it needs another page |
//! | change who may see memory | [`Dma::share`], [`Dma::reclaim`] | yes |
//! | let pools grow and shrink | [`Dma::grow`], [`Dma::shrink`], [`Dma::refill`], [`Dma::trim`] | yes |
//! | get back what failed conversions cost | [`Dma::retry_quarantine`] | yes |
//! | end a dead device, or one that lost the guest's trust | [`Device::revoke`](device::Device::revoke), [`Device::lose_trust`](device::Device::lose_trust) | never |
//! | ask what a device can do | [`Device::max_mapping`](device::Device::max_mapping) and the others | never |
//! | see everything | [`Dma::inspect`], [`observe::Observer`] | never |
//!
//! "Never" means that it may be called with interrupts off and locks held: it takes no lock, waits
//! for nobody, and calls the platform only for what the platform must answer in any context.
//!
//! # What decides
//!
//! One pure function: [`plan::map`] for maps, [`plan::alloc`] for allocations. They depend on the
//! [`regime::Regime`] of the machine (marks, limits and contents as data; the eleven platforms
//! stand in [`regime::PlatformName`]), the device's trust and limits, the state of the memory and
//! the pools at hand, and they can tell every rule that they applied ([`plan::Trace`]). The state
//! of memory is what the [`ledger::Ledger`] has in its books, or a [`pool::Pool`]'s label says.
//!
//! # What is safe
//!
//! Safe code cannot be made to read or write memory that it does not own: owned buffers are held
//! as raw parts while they are mapped, borrowed ones only inside a closure, and memory that the
//! host can write is only ever copied ([`shared::SharedBytes`]). One thing rests on the driver: to
//! hand the number of a [`DmaAddr`](addr::DmaAddr) to a device is its unsafe step, and whoever does
//! it stops the device before the mapping ends.
//!
//! # Examples
//!
//! `examples/kernel.rs` is a kernel's side of it in sixty lines, on a bare machine and as a guest;
//! `examples/firmware.rs` needs no heap. `coco-dma-sim` has a whole simulated machine in
//! `examples/hosted.rs`. A taste:
//!
//! ```
//! use coco_dma::addr::{AddressLimit, PhysAddr};
//! use coco_dma::plan::{self, DeviceInfo, Limits, MapRequest, Place, Plan, PoolInfo};
//! use coco_dma::reason::Bounce;
//! use coco_dma::regime::{Parameters, PlatformName};
//! use coco_dma::state::{Direction, Memory, PoolLabel, State};
//! # use coco_dma::{addr::PhysRange, attrs::Attrs};
//!
//! // A realm with 40 address bits, an untrusted device, a private buffer, a shared pool.
//! let numbers = Parameters { ipa_bits: Some(40), ..Parameters::default() };
//! let regime = PlatformName::Cca.regime(&numbers)?;
//! let range = PhysRange::new(PhysAddr::new(0x9000_0000), 64 << 20).unwrap();
//! let pools = [PoolInfo::new(PoolLabel::GuestShared, range)];
//! let request = MapRequest {
//!     regime: &regime,
//!     device: &DeviceInfo::PLAIN,
//!     place: Place::At(PhysAddr::new(0x8000_0000)),
//!     len: 4096,
//!     memory: Memory::Known(State::PRIVATE),
//!     direction: Direction::ToDevice,
//!     attrs: Attrs::NONE,
//!     align: 1,
//!     pools: &pools,
//! };
//! let Plan::Bounce { reason, mut pools, .. } = plan::map(&request, &mut ()) else {
//!     panic!("an untrusted device cannot reach private memory")
//! };
//! assert_eq!(reason, Bounce::PrivateMemory);
//! // The pool's memory is shared, so its address carries the top bit.
//! assert_eq!(pools.next().unwrap().base.unwrap().raw(), 0x80_9000_0000);
//! # Ok::<_, coco_dma::regime::WrongParameter>(())
//! ```
#![no_std]

#[cfg(feature = "alloc")]
extern crate alloc;
#[cfg(test)]
extern crate std;

pub mod addr;
pub mod attrs;
pub mod coherent;
pub mod convert;
mod copy;
pub mod device;
mod dma;
pub mod inspect;
pub mod iommu;
pub mod ledger;
mod name;
pub mod observe;
pub mod plan;
pub mod platform;
pub mod pool;
pub mod reason;
pub mod regime;
pub mod shared;
mod slots;
pub mod state;
pub mod stream;
pub mod waiters;
mod word;

pub use dma::Dma;
pub use name::Name;
pub use word::Word;
