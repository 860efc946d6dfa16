//! The invented memory.
// UNSAFETY: views are asked for.
#![expect(unsafe_code)]

use core::ptr::NonNull;

use coco_dma::addr::{PhysAddr, PhysRange};
use coco_dma::platform::Platform;
use coco_dma::regime::{Parameters, PlatformName};
use coco_dma::state::{CacheMode, Context, State};

use super::{Layer, MachineError, Storage, UserMachine};
use crate::memory::PrivateArena;

fn machine(platform: PlatformName, numbers: Parameters) -> Result<UserMachine, MachineError> {
    let regime = platform.regime(&numbers).unwrap();
    UserMachine::new(regime, PrivateArena::anonymous(4 << 20).unwrap(), 64 << 20)
}

#[test]
fn only_a_guest_has_private_memory() {
    for platform in [PlatformName::Open, PlatformName::Sme] {
        let error = machine(platform, Parameters::default()).unwrap_err();
        assert!(matches!(error, MachineError::NothingPrivate), "{error}");
    }
}

#[test]
fn memory_lies_below_the_marks_of_every_platform() {
    let narrow = Parameters {
        c_bit: Some(32),
        ipa_bits: Some(32),
        gpaw: Some(48),
        vtom: Some(1 << 32),
        granule: None,
    };
    for platform in PlatformName::ALL {
        for numbers in [Parameters::default(), narrow] {
            let Ok(machine) = machine(platform, numbers) else {
                assert!(!platform.regime(&numbers).unwrap().is_guest());
                continue;
            };
            let limit = machine.rules().memory_limit().raw();
            let [placed] = machine.shared() else { panic!() };
            assert!(machine.arena_range().last().raw() <= limit);
            assert!(placed.range.last().raw() <= limit);
            assert!(!machine.arena_range().overlaps(placed.range));
        }
    }
    let cca = Parameters { ipa_bits: Some(40), ..Parameters::default() };
    let machine = machine(PlatformName::Cca, cca).unwrap();
    assert_eq!(machine.shared()[0].dma.raw(), (1 << 39) + 0x2_0000_0000);
    assert_eq!(machine.arena_range().base().raw(), 0x1_0000_0000);
    let regime = PlatformName::Cca.regime(&narrow).unwrap();
    let error = UserMachine::new(regime, PrivateArena::new(4096).unwrap(), 2 << 30).unwrap_err();
    assert!(matches!(error, MachineError::TooLarge { limit: 0x7fff_ffff, .. }), "{error}");
}

#[test]
fn memory_is_found_where_it_lies_and_nowhere_else() {
    let machine = machine(PlatformName::Tdx, Parameters::default()).unwrap();
    let buffer = machine.arena().take(4096).unwrap();
    let second = machine.arena().take(512).unwrap();
    let found = |bytes| machine.locate(bytes).map(|range| (range.base().raw(), range.len()));
    assert_eq!(found(buffer.raw(4096)), Some((0x1_0000_0000, 4096)));
    assert_eq!(found(second.raw(512)), Some((0x1_0000_1000, 512)));
    let pool = machine.shared()[0].region.start();
    let part = |len| NonNull::slice_from_raw_parts(pool, len);
    assert_eq!(found(part(64 << 20)), Some((0x2_0000_0000, 64 << 20)));
    assert_eq!(found(part((64 << 20) + 1)), None);
    assert_eq!(found(NonNull::from(&mut [0_u8; 16][..])), None);
    let run = |base, len| PhysRange::new(PhysAddr::new(base), len).unwrap();
    let view = |run, state| {
        // SAFETY: memory of the machine, or refused.
        unsafe { machine.map_cpu(run, state, CacheMode::WriteBack, Context::Blocking) }
            .map(|view| view.start)
    };
    assert_eq!(view(run(0x2_0000_0000, 1), State::SHARED), Ok(pool));
    assert_eq!(view(run(0x1_0000_1000, 512), State::PRIVATE), Ok(second.raw(1).cast()));
    assert!(view(run(0x2_0000_0000, 1), State::PRIVATE).is_err());
    assert!(view(run(0x1_0000_0000, 1), State::SHARED).is_err());
    assert!(view(run(0x2_0000_0000, (64 << 20) + 1), State::SHARED).is_err());
    // SAFETY: nothing is converted.
    let error = unsafe { machine.convert(run(0x1_0000_0000, 4096), State::PRIVATE, State::SHARED) };
    assert_eq!(error.unwrap_err().done, 0);
}

#[test]
fn the_pool_is_made_once() {
    let machine = machine(PlatformName::Tdx, Parameters::default()).unwrap();
    let storage = Storage::of(&machine);
    let metadata = storage.metadata(&machine).unwrap();
    assert!(matches!(storage.metadata(&machine), Err(MachineError::PoolTaken)));
    assert_eq!(Layer::new(&machine, &metadata).pool().capacity(), 32768);
}
