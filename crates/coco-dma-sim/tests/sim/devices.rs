//! What an address on the bus means to a device, on each platform. The table is written down a
//! third time here, with numbers: codec, machine and test have to agree.

use coco_dma::regime::PlatformName;
use coco_dma::regime::PlatformName::*;
use coco_dma::state::PoolLabel;
use coco_dma::state::Trust;
use coco_dma::state::Trust::Accepted;
use coco_dma::state::Trust::Untrusted;
use coco_dma_sim::Machine;
use coco_dma_sim::Outcome;
use coco_dma_sim::Outcome::Ciphertext;
use coco_dma_sim::Outcome::Clear;
use coco_dma_sim::Outcome::Fault;
use coco_dma_sim::SimDevice;

use crate::support::GRANULE;
use crate::support::machine;
use crate::support::share;

/// What a device reads with this bit in the address: of private memory, and of shared.
type Row = (PlatformName, Trust, u64, Outcome, Outcome);

const GUESTS: [Row; 32] = [
    (Sev, Untrusted, 0, Ciphertext, Clear),
    (Sev, Untrusted, 1 << 51, Fault, Fault),
    (Sev, Accepted, 0, Fault, Fault),
    (Snp, Untrusted, 0, Ciphertext, Clear),
    (Snp, Untrusted, 1 << 51, Fault, Fault),
    (Snp, Accepted, 0, Clear, Fault),
    (Snp, Accepted, 1 << 51, Fault, Fault),
    (SnpVtom, Untrusted, 0, Ciphertext, Clear),
    (SnpVtom, Untrusted, 1 << 40, Fault, Fault),
    (SnpVtom, Accepted, 0, Clear, Fault),
    (SnpVtom, Accepted, 1 << 40, Fault, Clear),
    (Tdx, Untrusted, 0, Fault, Clear),
    (Tdx, Untrusted, 1 << 51, Fault, Fault),
    (Tdx, Accepted, 0, Clear, Fault),
    (Tdx, Accepted, 1 << 51, Fault, Clear),
    (Cca, Untrusted, 0, Fault, Fault),
    (Cca, Untrusted, 1 << 47, Fault, Clear),
    (Cca, Accepted, 0, Clear, Fault),
    (Cca, Accepted, 1 << 47, Fault, Clear),
    (Pkvm, Untrusted, 0, Fault, Clear),
    (Pkvm, Accepted, 0, Clear, Clear),
    (Pkvm, Accepted, 1 << 47, Fault, Fault),
    (Hyperv, Untrusted, 0, Fault, Clear),
    (Hyperv, Untrusted, 1 << 40, Fault, Fault),
    (Hyperv, Accepted, 0, Clear, Fault),
    (Hyperv, Accepted, 1 << 40, Fault, Fault),
    (S390, Untrusted, 0, Ciphertext, Clear),
    (S390, Untrusted, 1 << 51, Fault, Fault),
    (S390, Accepted, 0, Fault, Fault),
    (Pef, Untrusted, 0, Fault, Clear),
    (Pef, Untrusted, 1 << 51, Fault, Fault),
    (Pef, Accepted, 0, Fault, Fault),
];

/// Reads the 32 bytes in the middle of a granule that holds nothing but `byte`.
fn probe(machine: &Machine, trust: Trust, addr: u64, byte: u8) -> Outcome {
    let device = SimDevice::new(machine, "probe", trust);
    let mut seen = [0; 32];
    let outcome = device.read(addr + 100, &mut seen);
    match outcome {
        Clear => assert_eq!(seen, [byte; 32]),
        Fault => assert_eq!(seen, [0xff; 32]),
        _ => assert!(!seen.windows(4).any(|part| part == [byte; 4])),
    }
    let access = machine.accesses().pop().unwrap();
    assert_eq!((access.addr, access.len, access.write), (addr + 100, 32, false));
    assert_eq!((access.outcome, access.device.as_str()), (outcome, "probe"));
    assert_eq!(access.bytes, if outcome == Fault { &[][..] } else { &seen[..] });
    outcome
}

#[test]
fn an_address_means_what_the_platform_says() {
    for (platform, trust, bit, private, shared) in GUESTS {
        let machine = machine(platform);
        let hidden = machine.take(GRANULE).unwrap();
        let open = machine.take(GRANULE).unwrap();
        share(&machine, open).unwrap();
        machine.guest_write(hidden.base(), &[0x11; 4096]);
        machine.guest_write(open.base(), &[0x22; 4096]);
        let found = (
            probe(&machine, trust, hidden.base().raw() + bit, 0x11),
            probe(&machine, trust, open.base().raw() + bit, 0x22),
        );
        assert_eq!(found, (private, shared), "{platform} {trust} {bit:#x}");
    }
}

#[test]
fn an_open_machine_hides_nothing_and_has_no_marks() {
    for trust in [Untrusted, Accepted] {
        let machine = machine(Open);
        let run = machine.take(GRANULE).unwrap();
        machine.guest_write(run.base(), &[0x33; 4096]);
        assert_eq!(probe(&machine, trust, run.base().raw(), 0x33), Clear);
        assert_eq!(probe(&machine, trust, run.base().raw() + (1 << 47), 0x33), Fault);
    }
}

#[test]
fn an_sme_host_has_its_c_bit_in_the_address() {
    let machine = machine(Sme);
    let through = machine.take(GRANULE).unwrap();
    let plain = machine.adopt_pool(PoolLabel::HostPlain, GRANULE).unwrap().range;
    machine.guest_write(through.base(), &[0x11; 4096]);
    machine.guest_write(plain.base(), &[0x22; 4096]);
    let c_bit = 1 << 47;
    assert_eq!(probe(&machine, Untrusted, through.base().raw() + c_bit, 0x11), Clear);
    assert_eq!(probe(&machine, Untrusted, through.base().raw(), 0x11), Ciphertext);
    assert_eq!(probe(&machine, Untrusted, plain.base().raw(), 0x22), Clear);
    assert_eq!(probe(&machine, Untrusted, plain.base().raw() + c_bit, 0x22), Ciphertext);

    let device = SimDevice::new(&machine, "old", Untrusted);
    let mut seen = [0; 4];
    // A device without the lines for the C-bit loses it, and with it the bytes.
    let short = device.clone().address_bits(40);
    assert_eq!(short.read(through.base().raw() + c_bit, &mut seen), Ciphertext);
    // What is written the wrong way is read back the same wrong way, and only so.
    assert_eq!(device.write(plain.base().raw() + c_bit, &[0x44; 16]), Outcome::Corrupted);
    let mut whole = [0; 16];
    assert_eq!(device.read(plain.base().raw() + c_bit, &mut whole), Ciphertext);
    assert_eq!(whole, [0x44; 16]);
    device.read(plain.base().raw(), &mut whole);
    assert_ne!(whole, [0x44; 16]);
}

#[test]
fn a_device_counts_no_further_than_its_counter_and_goes_on_at_the_start_of_its_window() {
    let machine = machine(Open);
    let run = machine.take(2 * GRANULE).unwrap();
    let (base, boundary) = (run.base().raw(), 256);
    let whole: Vec<u8> = (0..=255).collect();
    machine.guest_write(run.base(), &whole);
    let device = SimDevice::new(&machine, "floppy", Untrusted).counts_within(boundary);
    assert_eq!(device.fetch(base + 250, 10).unwrap(), [250, 251, 252, 253, 254, 255, 0, 1, 2, 3]);
    assert_eq!(device.fetch(base, 256).unwrap(), whole);
    assert_eq!(device.write(base + 255, &[7, 8]), Clear);
    let mut seen = [0; 257];
    machine.guest_read(run.base(), &mut seen);
    assert_eq!((seen[0], seen[255], seen[256]), (8, 7, 0));
}

#[test]
fn a_confined_device_faults_outside_of_what_it_is_let_to() {
    let machine = machine(Open);
    let (one, two) = (machine.take(GRANULE).unwrap(), machine.take(GRANULE).unwrap());
    let device = SimDevice::new(&machine, "sensor", Untrusted).confined_to(vec![two]);
    let last = two.last().raw();
    assert_eq!(device.write(two.base().raw(), &[1; 16]), Clear);
    assert_eq!(device.write(one.base().raw(), &[1; 16]), Fault);
    assert_eq!(device.write(last - 15, &[1; 16]), Clear);
    assert_eq!(device.write(last - 14, &[1; 16]), Fault);
    assert_eq!(device.write(one.last().raw(), &[1; 16]), Fault);
}

#[test]
fn a_write_lands_or_does_what_the_platform_lets_it() {
    for (platform, trust, bit, private, shared) in GUESTS {
        let machine = machine(platform);
        let hidden = machine.take(GRANULE).unwrap();
        let open = machine.take(GRANULE).unwrap();
        share(&machine, open).unwrap();
        let device = SimDevice::new(&machine, "nic", trust);
        let mut seen = [0; 16];
        let outcome = device.write(open.base().raw() + bit, &[0x55; 16]);
        assert_eq!(outcome, shared, "{platform} {trust} {bit:#x}");
        machine.guest_read(open.base(), &mut seen);
        assert_eq!(seen == [0x55; 16], shared == Clear, "{platform} {trust} {bit:#x}");
        let outcome = device.write(hidden.base().raw() + bit, &[0x55; 16]);
        let wanted = match (private, platform) {
            (Ciphertext, Sev) => Outcome::Corrupted,
            (Ciphertext, S390) => Outcome::Lost,
            (Ciphertext, _) => Fault,
            (other, _) => other,
        };
        assert_eq!(outcome, wanted, "{platform} {trust} {bit:#x}");
        machine.guest_read(hidden.base(), &mut seen);
        assert_eq!(seen == [0x55; 16], private == Clear, "{platform} {trust} {bit:#x}");
    }
}

#[test]
fn an_access_stops_where_memory_or_the_right_to_it_ends() {
    let machine = machine(Tdx);
    let run = machine.take(2 * GRANULE).unwrap();
    share(&machine, run.slice(0, GRANULE).unwrap()).unwrap();
    machine.guest_write(run.base(), &[6; 8192]);
    let device = SimDevice::new(&machine, "nic", Untrusted);
    let mut seen = [0; 100];
    assert_eq!(device.read(run.base().raw() + GRANULE - 60, &mut seen), Fault);
    assert_eq!((&seen[..60], &seen[60..]), (&[6; 60][..], &[0xff; 40][..]));
    assert_eq!(machine.accesses()[0].bytes, [6; 60]);
    assert_eq!(device.write(run.base().raw() + GRANULE - 60, &[8; 100]), Fault);
    assert_eq!(machine.accesses()[1].bytes, [8; 60]);
    machine.guest_read(run.base().checked_add(GRANULE - 60).unwrap(), &mut seen);
    assert_eq!((&seen[..60], &seen[60..]), (&[8; 60][..], &[6; 40][..]));
    for addr in [0, u64::MAX, u64::MAX - 50] {
        assert_eq!(device.read(addr, &mut seen), Fault);
        assert_eq!(device.write(addr, &seen), Fault);
    }
    machine.forget_accesses();
    assert_eq!(machine.accesses(), []);
}
