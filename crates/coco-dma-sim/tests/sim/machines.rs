//! Who sees what, and what conversions make of it, on each platform.

use coco_dma::addr::PhysAddr;
use coco_dma::addr::PhysRange;
use coco_dma::regime::Contents;
use coco_dma::regime::Parameters;
use coco_dma::regime::PlatformName;
use coco_dma::regime::Regime;
use coco_dma::state::State;
use coco_dma::state::Trust;
use coco_dma_sim::BuildError;
use coco_dma_sim::Effect;
use coco_dma_sim::GranuleState;
use coco_dma_sim::Machine;
use coco_dma_sim::OnPrivate;
use coco_dma_sim::Outcome;
use coco_dma_sim::SimDevice;
use coco_dma_sim::marker;

use crate::support::BASE;
use crate::support::GRANULE;
use crate::support::GUESTS;
use crate::support::SIZE;
use crate::support::machine;
use crate::support::reclaim;
use crate::support::share;

/// Half a granule and a bit less, so that it begins or ends inside a block of the cipher.
const ODD: usize = 2045;

fn guest_bytes(machine: &Machine, run: PhysRange) -> Vec<u8> {
    let mut bytes = vec![0; usize::try_from(run.len()).unwrap()];
    assert!(machine.guest_read(run.base(), &mut bytes));
    bytes
}

fn host_bytes(machine: &Machine, run: PhysRange) -> (Outcome, Vec<u8>) {
    let mut bytes = vec![0; usize::try_from(run.len()).unwrap()];
    (machine.host_read(run.base(), &mut bytes), bytes)
}

#[test]
fn private_bytes_are_never_the_hosts() {
    for platform in GUESTS {
        let machine = machine(platform);
        let secret = marker(1);
        machine.fill_private(&secret);
        assert_eq!(machine.search(&secret), [], "{platform}");
        // From every offset in a block, so that no part of a block comes through either.
        let device = SimDevice::new(&machine, "nic", Trust::Untrusted);
        let top = if platform == PlatformName::Cca { 1 << 47 } else { 0 };
        for skip in 0..48 {
            let at = BASE + 3 * GRANULE - 24 + skip;
            let mut seen = [0; ODD];
            let host = machine.host_read(PhysAddr::new(at), &mut seen);
            let mut given = [0; ODD];
            assert_eq!(device.read(at + top, &mut given), host, "{platform}");
            assert_eq!(seen, given, "{platform}");
            let mut truth = [0; ODD];
            machine.guest_read(PhysAddr::new(at), &mut truth);
            // The secret repeats: its first parts are all of them.
            let parts: Vec<&[u8]> = truth.windows(8).take(secret.len()).collect();
            assert!(!seen.windows(8).any(|part| parts.contains(&part)), "{platform}");
            match machine.on_private() {
                OnPrivate::Fault => assert_eq!((host, seen), (Outcome::Fault, [0xff; ODD])),
                _ => assert_eq!(host, Outcome::Ciphertext, "{platform}"),
            }
        }
    }
}

#[test]
fn what_is_shared_is_the_hosts_and_nothing_beside_it() {
    for platform in GUESTS {
        let machine = machine(platform);
        let run = machine.take(2 * GRANULE).unwrap();
        share(&machine, run).unwrap();
        assert_eq!(machine.shared(), [run]);
        machine.guest_write(run.base(), &[1; 2 * 4096]);
        assert_eq!(host_bytes(&machine, run), (Outcome::Clear, vec![1; 2 * 4096]), "{platform}");
        assert_eq!(machine.host_write(run.base(), &[2; 100]), Outcome::Clear);
        assert_eq!(guest_bytes(&machine, run)[..101], [[2; 100].as_slice(), &[1]].concat());

        // An access that runs into private memory gets what the platform gives there.
        let mut seen = [0; 2 * 4096];
        let outcome = machine.host_read(PhysAddr::new(BASE + GRANULE), &mut seen);
        assert_eq!(seen[..4096], [1; 4096], "{platform}");
        match machine.on_private() {
            OnPrivate::Fault => assert_eq!(outcome, Outcome::Fault),
            _ => assert_eq!(outcome, Outcome::Ciphertext),
        }
        reclaim(&machine, run).unwrap();
        assert_eq!(machine.shared(), []);
        assert_ne!(host_bytes(&machine, run).0, Outcome::Clear);
        assert_eq!((machine.counts().shares, machine.counts().reclaims), (1, 1));
        assert_eq!(machine.counts().converted, 4);
    }
}

#[test]
fn the_hosts_writes_to_private_memory_do_what_the_platform_lets_them() {
    for platform in GUESTS {
        let machine = machine(platform);
        machine.fill_private(&[7]);
        let run = machine.take(GRANULE).unwrap();
        let at = run.base().checked_add(20).unwrap();
        let outcome = machine.host_write(at, &[9; 4]);
        let bytes = guest_bytes(&machine, run);
        let state = machine.state(at);
        let kept = GranuleState::In(State::PRIVATE);
        match platform {
            PlatformName::Sev => {
                assert_eq!((outcome, state), (Outcome::Corrupted, Some(kept)));
                // The blocks that it touched are garbage, and no other is.
                assert_ne!(bytes[16..32], [7; 16]);
                assert_ne!(bytes[20..24], [9; 4]);
                assert_eq!((&bytes[..16], &bytes[32..]), (&[7; 16][..], &[7; 4096 - 32][..]));
            }
            PlatformName::S390 => {
                assert_eq!((outcome, state), (Outcome::Lost, Some(GranuleState::Lost)));
                assert_ne!(bytes[1000..1016], [7; 16]);
            }
            _ => {
                assert_eq!((outcome, state), (Outcome::Fault, Some(kept)), "{platform}");
                assert_eq!(bytes, [7; 4096]);
            }
        }
    }
}

#[test]
fn ciphertext_written_back_is_the_plaintext_again() {
    let machine = machine(PlatformName::Sev);
    machine.fill_private(&marker(3));
    let run = machine.take(2 * GRANULE).unwrap();
    let before = guest_bytes(&machine, run);
    let (_, hidden) = host_bytes(&machine, run);
    // The same ciphertext from wherever the host begins to read.
    let part = run.slice(4090, 21).unwrap();
    assert_eq!(host_bytes(&machine, part).1, hidden[4090..4111]);
    machine.host_write(run.base(), &[0; 64]);
    assert_ne!(guest_bytes(&machine, run), before);
    machine.host_write(run.base(), &hidden);
    assert_eq!(guest_bytes(&machine, run), before);
    // At another address it is garbage: the address is part of the cipher.
    machine.host_write(run.base(), &hidden[4096..]);
    assert_ne!(guest_bytes(&machine, run)[..4096], before[4096..]);
}

/// What a conversion leaves, from what the run held: kept, zero, or something else.
fn judged(before: &[u8], after: &[u8]) -> Contents {
    if after == before {
        Contents::Kept
    } else if after.iter().all(|byte| *byte == 0) {
        Contents::Zeroed
    } else {
        let same = before.iter().zip(after).filter(|(a, b)| a == b).count();
        assert!(same < before.len() / 16, "garbage keeps {same} of {} bytes", before.len());
        Contents::Undefined
    }
}

#[test]
fn conversions_make_of_the_bytes_what_the_rules_say() {
    for platform in GUESTS {
        let machine = machine(platform);
        let Regime::Guest(rules) = platform.regime(&Parameters::default()).unwrap() else {
            unreachable!()
        };
        let run = machine.take(2 * GRANULE).unwrap();
        let secret: Vec<u8> = marker(5).iter().copied().cycle().take(8192).collect();
        machine.guest_write(run.base(), &secret);
        share(&machine, run).unwrap();
        assert_eq!(judged(&secret, &guest_bytes(&machine, run)), rules.on_share, "{platform}");
        machine.guest_write(run.base(), &secret);
        reclaim(&machine, run).unwrap();
        assert_eq!(judged(&secret, &guest_bytes(&machine, run)), rules.on_reclaim, "{platform}");
    }
}

#[test]
fn a_recipher_is_undone_by_the_way_back() {
    let machine = machine(PlatformName::Snp);
    assert_eq!((machine.on_share(), machine.on_reclaim()), (Effect::Recipher, Effect::Recipher));
    let run = machine.take(GRANULE).unwrap();
    machine.guest_write(run.base(), &[7; 4096]);
    let (_, hidden) = host_bytes(&machine, run);
    share(&machine, run).unwrap();
    assert_eq!(guest_bytes(&machine, run), hidden, "the DRAM is what it was");
    reclaim(&machine, run).unwrap();
    assert_eq!(guest_bytes(&machine, run), [7; 4096]);
}

#[test]
fn granules_in_the_wanted_state_are_left_alone() {
    let machine = machine(PlatformName::Tdx);
    let run = machine.take(4 * GRANULE).unwrap();
    share(&machine, run.slice(GRANULE, GRANULE).unwrap()).unwrap();
    machine.guest_write(run.base().checked_add(GRANULE).unwrap(), &[3; 4096]);
    share(&machine, run).unwrap();
    assert_eq!(guest_bytes(&machine, run)[4096..8192], [3; 4096]);
    assert_eq!((machine.counts().converted, machine.counts().already), (4, 1));
}

#[test]
fn what_was_never_accepted_is_the_hosts_until_it_is() {
    for platform in [PlatformName::Tdx, PlatformName::Snp] {
        let machine = machine(platform);
        let run = machine.take(GRANULE).unwrap();
        assert!(machine.set_up(run, GranuleState::Unaccepted));
        assert_eq!(machine.host_write(run.base(), &[5; 4096]), Outcome::Clear);
        let inside = SimDevice::new(&machine, "gpu", Trust::Accepted);
        assert_eq!(inside.fetch(run.base().raw(), 1), Err(Outcome::Fault));
        reclaim(&machine, run).unwrap();
        assert_ne!(guest_bytes(&machine, run), [5; 4096], "{platform}");
        assert!(machine.all_in(run, State::PRIVATE));
        assert!(inside.fetch(run.base().raw(), 1).is_ok());
    }
}

#[test]
fn what_was_never_accepted_is_no_guest_memory_for_anybody() {
    for platform in GUESTS {
        let machine = machine(platform);
        let run = machine.take(GRANULE).unwrap();
        machine.set_up(run, GranuleState::Unaccepted);
        machine.host_write(run.base(), &[5; 4096]);
        let inside = SimDevice::new(&machine, "gpu", Trust::Accepted);
        assert_eq!(inside.fetch(run.base().raw(), 1), Err(Outcome::Fault), "{platform}");
        // Shared, it is still the host's page, with what the host had there.
        share(&machine, run).unwrap();
        assert_eq!(host_bytes(&machine, run), (Outcome::Clear, vec![5; 4096]), "{platform}");
    }
}

#[test]
fn runs_are_as_long_as_can_be_and_not_longer() {
    let machine = machine(PlatformName::Tdx);
    let run = machine.take(6 * GRANULE).unwrap();
    let (low, high) =
        (run.slice(0, 2 * GRANULE).unwrap(), run.slice(3 * GRANULE, GRANULE).unwrap());
    share(&machine, low).unwrap();
    share(&machine, high).unwrap();
    assert_eq!(machine.shared(), [low, high]);
    let seen: Vec<PhysRange> = machine.host_snapshot().iter().map(|run| run.range).collect();
    assert_eq!(seen, [low, high]);
}

#[test]
fn granules_are_as_large_as_the_machine_says() {
    let numbers = Parameters { granule: Some(0x1_0000), ..Parameters::default() };
    let builder = Machine::builder(PlatformName::Cca).numbers(numbers);
    let machine = builder.clone().ram(BASE, SIZE).build().unwrap();
    let run = machine.take(1).unwrap();
    assert_eq!(run.len(), 0x1_0000);
    share(&machine, run).unwrap();
    assert_eq!(machine.shared(), [run]);
    assert_eq!(machine.counts().converted, 1);
    assert!(share(&machine, run.slice(0, GRANULE).unwrap()).is_err());
    let odd = builder.ram(BASE, SIZE + GRANULE).build();
    assert_eq!(
        odd.err(),
        Some(BuildError::Ram { base: BASE, size: SIZE + GRANULE, granule: 0x1_0000 })
    );
}

#[test]
fn memory_that_cannot_be_is_refused() {
    let tdx = || Machine::builder(PlatformName::Tdx);
    for (base, size) in [(BASE, 0), (u64::MAX - 4095, 8192), (1 << 51, 4096), (5, 4096)] {
        let error = tdx().ram(base, size).build().err();
        assert_eq!(error, Some(BuildError::Ram { base, size, granule: GRANULE }));
    }
    let twice = tdx().ram(BASE, SIZE).ram(BASE + GRANULE, GRANULE).build();
    assert!(matches!(twice, Err(BuildError::Overlap { .. })));
    let wrong = Parameters { gpaw: Some(50), ..Parameters::default() };
    assert!(matches!(tdx().numbers(wrong).build(), Err(BuildError::Parameter(_))));
}

#[test]
fn a_pointer_is_located_and_leads_back() {
    use coco_dma::platform::Platform;
    let machine =
        Machine::builder(PlatformName::Open).ram(BASE, SIZE).ram(1 << 33, SIZE).build().unwrap();
    let buffer = machine.alloc_at_offset(5000, 100).unwrap();
    assert_eq!(machine.locate(buffer.bytes()), Some(buffer.range()));
    assert_eq!(buffer.range().base().raw() % 4096, 100);
    let far = machine.take_at(PhysRange::new(PhysAddr::new(1 << 33), GRANULE).unwrap()).unwrap();
    assert_eq!(far.base().raw(), 1 << 33);
    let outside = [0_u8; 4];
    assert_eq!(machine.locate((&outside[..]).into()), None);
    assert!(buffer.write(&[1, 2, 3]) && !buffer.write(&[0; 5001]));
    assert_eq!(buffer.read()[..4], [1, 2, 3, 0]);
    assert!(machine.take(SIZE).is_err(), "neither region has a run that long left");
    let whole = buffer.run();
    drop(buffer);
    assert_eq!(machine.take(whole.len()).unwrap(), whole);
    assert_eq!(machine.violations(), []);
}
