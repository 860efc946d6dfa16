//! What is done to the layer: numbers that a world takes modulo what it has.

use proptest::prelude::*;

use coco_dma::attrs::Attrs;
use coco_dma::plan::AllocKind;
use coco_dma::state::Context;
use coco_dma::state::Direction;

use super::alloc::How;

/// One call, or one mishap to come.
#[derive(Clone, Debug)]
pub(crate) enum Call {
    Map {
        device: usize,
        place: Place,
        direction: Direction,
        attrs: u8,
    },
    MapList {
        device: usize,
        places: Vec<Place>,
        direction: Direction,
        written: usize,
    },
    Owned {
        device: usize,
        len: usize,
        direction: Direction,
        lost: bool,
    },
    DeviceWrites {
        map: usize,
        at: usize,
        len: usize,
        seed: u8,
    },
    DriverWrites {
        map: usize,
        at: usize,
        len: usize,
        seed: u8,
    },
    SyncForCpu {
        map: usize,
        at: usize,
        len: usize,
    },
    Unmap {
        map: usize,
        written: usize,
    },
    Alloc {
        device: usize,
        len: usize,
        context: Context,
        how: How,
    },
    /// Maps what is a peer's memory, in part at least, or converts it.
    Peer {
        device: usize,
        place: Place,
        direction: Direction,
        attrs: u8,
    },
    Ring {
        memory: usize,
        seed: u8,
    },
    Free {
        memory: usize,
    },
    Share {
        run: Place,
        odd: bool,
    },
    Reclaim {
        run: Place,
        odd: bool,
    },
    /// Converts what somebody uses: a pool's region, or pages of an allocation.
    Trespass {
        which: usize,
    },
    Grow {
        pool: usize,
    },
    Shrink {
        pool: usize,
    },
    Refill,
    Retry {
        tries: usize,
    },
    Revoke {
        device: usize,
    },
    LoseTrust {
        device: usize,
    },
    Rebind {
        device: usize,
    },
    Room {
        device: usize,
        places: Vec<Place>,
    },
    Fault {
        skip: u64,
        done: u64,
        doubt: u64,
        half: bool,
        lie: Lie,
    },
    NoView {
        skip: u64,
    },
    Heal,
}

/// A place in the heap and a length, in bytes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    pub(crate) at: u64,
    pub(crate) len: u64,
}

/// What the platform really did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lie {
    /// What it says; nothing of what is in doubt.
    NoneOfDoubt,
    /// What it says, and all of what is in doubt.
    AllOfDoubt,
    /// It says that all went well, and some of it did.
    Claims,
    /// Something else altogether, which nobody can find out.
    Wild(u64),
}

fn place(most: u64) -> impl Strategy<Value = Place> {
    (0..1u64 << 20, 1..=most).prop_map(|(at, len)| Place { at, len })
}

fn direction() -> impl Strategy<Value = Direction> {
    prop_oneof![Just(Direction::ToDevice), Just(Direction::FromDevice), Just(Direction::Both),]
}

fn context() -> impl Strategy<Value = Context> {
    prop_oneof![2 => Just(Context::Blocking), 1 => Just(Context::Atomic)]
}

/// Every kind of allocation, with attributes that only some of them take.
fn how() -> impl Strategy<Value = How> {
    let kinds = [AllocKind::Coherent, AllocKind::Pages, AllocKind::NonContiguous];
    let odd = [Attrs::WRITE_COMBINE, Attrs::ALLOC_SINGLE_PAGES, Attrs::CC_SHARED];
    let attrs = prop_oneof![
        6 => Just(Attrs::NONE),
        2 => Just(Attrs::NO_WARN),
        2 => proptest::sample::select(odd.to_vec()),
    ];
    (proptest::sample::select(kinds.to_vec()), attrs).prop_map(|(kind, attrs)| How { kind, attrs })
}

/// Lies that a layer can see through, or all of them.
fn lie(wild: bool) -> BoxedStrategy<Lie> {
    let told = prop_oneof![Just(Lie::NoneOfDoubt), Just(Lie::AllOfDoubt), Just(Lie::Claims)];
    if wild { prop_oneof![told, any::<u64>().prop_map(Lie::Wild)].boxed() } else { told.boxed() }
}

/// Any call.
pub(crate) fn call(wild: bool) -> impl Strategy<Value = Call> {
    let which = || 0..64usize;
    let map = (which(), place(9000), direction(), 0..8u8);
    let list = (which(), proptest::collection::vec(place(5000), 1..4), direction(), 0..9000usize);
    let owned = (which(), 1..9000usize, direction(), proptest::bool::weighted(0.1));
    let part = || (which(), 0..9000usize, 0..9000usize);
    let doubt = prop_oneof![Just(0), 0..4u64];
    let done = prop_oneof![Just(0), 0..5u64];
    let fault = (0..3u64, done, doubt, proptest::bool::weighted(0.2), lie(wild));
    let grown = || (which(), proptest::bool::weighted(0.1));
    prop_oneof![
        8 => map.prop_map(|(device, place, direction, attrs)| {
            Call::Map { device, place, direction, attrs }
        }),
        3 => list.prop_map(|(device, places, direction, written)| {
            Call::MapList { device, places, direction, written }
        }),
        2 => owned.prop_map(|(device, len, direction, lost)| {
            Call::Owned { device, len, direction, lost }
        }),
        4 => (part(), any::<u8>()).prop_map(|((map, at, len), seed)| {
            Call::DeviceWrites { map, at, len, seed }
        }),
        2 => (part(), any::<u8>()).prop_map(|((map, at, len), seed)| {
            Call::DriverWrites { map, at, len, seed }
        }),
        2 => part().prop_map(|(map, at, len)| Call::SyncForCpu { map, at, len }),
        7 => (which(), 0..10_000usize).prop_map(|(map, written)| Call::Unmap { map, written }),
        5 => (which(), 1..20_000usize, context(), how()).prop_map(|(device, len, context, how)| {
            Call::Alloc { device, len, context, how }
        }),
        1 => (which(), place(9000), direction(), 0..5u8).prop_map(
            |(device, place, direction, attrs)| Call::Peer { device, place, direction, attrs }
        ),
        2 => (which(), any::<u8>()).prop_map(|(memory, seed)| Call::Ring { memory, seed }),
        4 => which().prop_map(|memory| Call::Free { memory }),
        6 => (place(6), grown()).prop_map(|(run, (_, odd))| Call::Share { run, odd }),
        4 => (place(6), grown()).prop_map(|(run, (_, odd))| Call::Reclaim { run, odd }),
        1 => which().prop_map(|which| Call::Trespass { which }),
        3 => which().prop_map(|pool| Call::Grow { pool }),
        3 => which().prop_map(|pool| Call::Shrink { pool }),
        1 => Just(Call::Refill),
        3 => (0..4usize).prop_map(|tries| Call::Retry { tries }),
        1 => which().prop_map(|device| Call::Revoke { device }),
        1 => which().prop_map(|device| Call::LoseTrust { device }),
        3 => which().prop_map(|device| Call::Rebind { device }),
        1 => (which(), proptest::collection::vec(place(5000), 0..4)).prop_map(|(device, places)| {
            Call::Room { device, places }
        }),
        4 => fault.prop_map(|(skip, done, doubt, half, lie)| {
            Call::Fault { skip, done, doubt, half, lie }
        }),
        2 => (0..4u64).prop_map(|skip| Call::NoView { skip }),
        2 => Just(Call::Heal),
    ]
}
