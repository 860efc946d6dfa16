//! A userspace machine for `coco-dma`, and the device on its other side.
//!
//! The machine is this process: its private memory is an arena that nobody else is given
//! ([`memory`]), its shared memory a sealed memfd ([`machine`]), and its disks are real virtio-blk
//! devices in other processes ([`device`]) that are given that memfd over vhost-user ([`front`])
//! and nothing else. A [`disk`] keeps requests in flight on one of them, [`copy`] carries a whole
//! image from one disk to another through the layer, and [`attack`] shows afterwards that the
//! device refuses every address outside of what was shared.
//!
//! What the device sees of memory is what it was sent: the guest physical address of a region is
//! the DMA form of the platform that the machine plays, so that a wrong address bit is refused by
//! the device itself.

pub mod attack;
pub mod copy;
pub mod cost;
pub mod device;
pub mod disk;
pub mod front;
pub mod machine;
pub mod memory;
