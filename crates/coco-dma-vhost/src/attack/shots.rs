//! The addresses that a device must refuse.

use coco_dma::state::{State, Trust};

use crate::machine::UserMachine;

/// Bytes of the buffer of a good request.
pub(super) const DATA: u32 = 4096;

/// One request.
#[derive(Clone, Copy, Debug)]
pub(super) struct Shot {
    pub(super) name: &'static str,
    pub(super) aim: Aim,
    pub(super) len: u32,
    /// Which way the device is to move bytes.
    pub(super) device_writes: bool,
}

/// Where a descriptor points.
#[derive(Clone, Copy, Debug)]
pub(super) enum Aim {
    /// At the buffer of a good request.
    Data,
    /// At private memory, in the form that it would have were it shared.
    Private,
    /// At private memory, by the pointer that this process has.
    Pointer,
    /// At the first byte past the pool.
    Past,
    /// One page below the pool.
    Below,
    /// At the last 2 KiB of the pool: twice as long, it leaves it.
    Across,
    /// At the last 2 KiB of all addresses.
    Wrapping,
    /// At address 0.
    Zero,
    /// At the buffer of a good request, with a bit of the address that is wrong on this platform.
    WrongForm,
}

const fn shot(name: &'static str, aim: Aim, device_writes: bool) -> Shot {
    Shot { name, aim, len: DATA, device_writes }
}

/// What has to work: the device writes, the device reads.
pub(super) const GOOD: [Shot; 2] =
    [shot("good-write", Aim::Data, true), shot("good-read", Aim::Data, false)];

/// What has to be refused.
pub(super) const BAD: [Shot; 11] = [
    shot("private-memory-write", Aim::Private, true),
    shot("private-memory-read", Aim::Private, false),
    shot("private-pointer-write", Aim::Pointer, true),
    shot("private-pointer-read", Aim::Pointer, false),
    shot("past-the-pool", Aim::Past, true),
    shot("below-the-pool", Aim::Below, true),
    shot("across-the-end", Aim::Across, true),
    shot("wrapping", Aim::Wrapping, true),
    shot("at-zero", Aim::Zero, true),
    Shot { len: 0, ..shot("of-length-zero", Aim::Data, true) },
    shot("wrong-form", Aim::WrongForm, true),
];

impl Aim {
    /// The address, where a good request would have `data`.
    pub(super) fn address(self, machine: &UserMachine, data: u64) -> u64 {
        let (base, len) = machine
            .shared()
            .first()
            .map_or((0, 0), |placed| (placed.dma.raw(), placed.range.len()));
        let mark = machine.mark();
        match self {
            Self::Data => data,
            Self::Private => machine.arena_range().base().raw().wrapping_add(mark),
            Self::Pointer => machine.arena().start().addr().get() as u64,
            Self::Past => base.wrapping_add(len),
            Self::Below => base.wrapping_sub(u64::from(DATA)),
            Self::Across => base.wrapping_add(len).wrapping_sub(u64::from(DATA / 2)),
            Self::Wrapping => 0_u64.wrapping_sub(u64::from(DATA / 2)),
            Self::Zero => 0,
            Self::WrongForm => data ^ wrong_bit(machine, mark),
        }
    }
}

/// The address bit that is most easily wrong: the mark that is missing where untrusted devices
/// need one, the mark of page tables where they must not be given it, and where the platform has
/// no mark at all one that it might be taken to have.
fn wrong_bit(machine: &UserMachine, mark: u64) -> u64 {
    let regime = machine.rules();
    let of_page_tables = [State::PRIVATE, State::SHARED]
        .into_iter()
        .filter_map(|state| regime.cpu_mark(state))
        .find(|mark| *mark != 0);
    match (mark, of_page_tables) {
        (0, Some(bit)) => bit,
        (0, None) => 1 << 47,
        (mark, _) => mark,
    }
}

impl UserMachine {
    /// The mark of shared memory in the addresses of an untrusted device.
    fn mark(&self) -> u64 {
        self.rules().dma_mark(Trust::Untrusted, State::SHARED).unwrap_or(0)
    }
}
