//! The codecs: every address vector of the specifications, and decode inverts encode wherever
//! the form tells.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test stops where it fails")]

use coco_dma::addr::DmaAddr;
use coco_dma::addr::PhysAddr;
use coco_dma::regime::Contents;
use coco_dma::regime::Parameters;
use coco_dma::regime::PlatformName;
use coco_dma::regime::Regime;
use coco_dma::state::State;
use coco_dma::state::Trust;
use proptest::prelude::*;

fn regime(name: &str, numbers: Parameters) -> Regime {
    PlatformName::from_name(name).unwrap().regime(&numbers).unwrap()
}

fn plain(name: &str) -> Regime {
    regime(name, Parameters::default())
}

fn dma(regime: &Regime, trust: Trust, state: State, bus: u64) -> Option<u64> {
    regime.dma_form(trust, state, bus).map(DmaAddr::raw)
}

/// `(platform, parameters, trust, state, bus, form)`.
#[test]
fn dma_vectors() {
    use Trust::{Accepted, Untrusted};
    let none = Parameters::default();
    let ipa = |bits| Parameters { ipa_bits: Some(bits), ..none };
    let gpaw = |bits| Parameters { gpaw: Some(bits), ..none };
    let c_bit = |bit| Parameters { c_bit: Some(bit), ..none };
    let vtom = |top| Parameters { vtom: Some(top), ..none };
    let p = 0x8800_0000;
    let rows = [
        ("open", none, Untrusted, State::Ordinary, p, Some(p)),
        ("sme", c_bit(47), Untrusted, State::ENCRYPTED, 0x1_0000_0000, Some(0x8001_0000_0000)),
        ("sme", c_bit(51), Untrusted, State::ENCRYPTED, 0, Some(1 << 51)),
        ("sme", c_bit(47), Untrusted, State::PLAIN, p, Some(p)),
        ("sev", none, Untrusted, State::SHARED, p, Some(p)),
        ("sev", none, Untrusted, State::PRIVATE, p, None),
        ("sev", none, Accepted, State::PRIVATE, p, None),
        ("snp", none, Untrusted, State::SHARED, p, Some(p)),
        ("snp", none, Untrusted, State::PRIVATE, p, None),
        ("snp", none, Accepted, State::PRIVATE, p, Some(p)),
        ("snp", none, Accepted, State::SHARED, p, None),
        ("snp-vtom", none, Untrusted, State::SHARED, p, Some(p)),
        ("snp-vtom", none, Accepted, State::PRIVATE, p, Some(p)),
        ("snp-vtom", none, Accepted, State::SHARED, p, Some(p + (1 << 40))),
        ("snp-vtom", vtom(1 << 46), Accepted, State::SHARED, p, Some(p + (1 << 46))),
        ("tdx", none, Untrusted, State::SHARED, p, Some(p)),
        ("tdx", none, Accepted, State::PRIVATE, p, Some(p)),
        ("tdx", none, Accepted, State::SHARED, 0x1_0000_0000, Some(0x0008_0001_0000_0000)),
        ("tdx", gpaw(48), Accepted, State::SHARED, 0x1_0000_0000, Some(0x8001_0000_0000)),
        ("cca", ipa(48), Untrusted, State::SHARED, p, Some(0x8000_8800_0000)),
        ("cca", ipa(40), Untrusted, State::SHARED, 0x9000_0000, Some(0x80_9000_0000)),
        ("cca", none, Accepted, State::PRIVATE, p, Some(p)),
        ("cca", none, Accepted, State::SHARED, p, Some(0x8000_8800_0000)),
        ("cca", none, Untrusted, State::PRIVATE, p, None),
        ("pkvm", none, Untrusted, State::SHARED, p, Some(p)),
        ("pkvm", none, Untrusted, State::PRIVATE, p, None),
        ("pkvm", none, Accepted, State::PRIVATE, p, Some(p)),
        ("pkvm", none, Accepted, State::SHARED, p, Some(p)),
        ("hyperv", none, Untrusted, State::SHARED, p, Some(p)),
        ("hyperv", none, Accepted, State::PRIVATE, p, Some(p)),
        ("hyperv", none, Accepted, State::SHARED, p, None),
        ("s390", none, Untrusted, State::SHARED, p, Some(p)),
        ("s390", none, Accepted, State::PRIVATE, p, None),
        ("pef", none, Untrusted, State::SHARED, p, Some(p)),
        ("pef", none, Accepted, State::SHARED, p, None),
        // A state of another kind of machine has no form.
        ("open", none, Untrusted, State::SHARED, p, None),
        ("sme", none, Untrusted, State::SHARED, p, None),
        ("tdx", none, Untrusted, State::ENCRYPTED, p, None),
        // An address that reaches into the marks has none either; the last one below has.
        ("cca", ipa(40), Untrusted, State::SHARED, (1 << 39) - 1, Some((1 << 40) - 1)),
        ("cca", ipa(40), Untrusted, State::SHARED, 1 << 39, None),
        ("sme", c_bit(47), Untrusted, State::PLAIN, 1 << 47, None),
    ];
    for (name, numbers, trust, state, bus, form) in rows {
        assert_eq!(dma(&regime(name, numbers), trust, state, bus), form, "{name} {trust} {state}");
    }
}

#[test]
fn cpu_vectors() {
    let p = 0x8800_0000;
    let rows = [
        ("open", State::Ordinary, Some(p)),
        ("sme", State::ENCRYPTED, Some(p | 1 << 47)),
        ("sme", State::PLAIN, Some(p)),
        ("sev", State::PRIVATE, Some(p | 1 << 51)),
        ("sev", State::SHARED, Some(p)),
        ("snp", State::PRIVATE, Some(p | 1 << 51)),
        ("snp-vtom", State::PRIVATE, Some(p)),
        ("snp-vtom", State::SHARED, Some(p | 1 << 40)),
        ("tdx", State::PRIVATE, Some(p)),
        ("tdx", State::SHARED, Some(p | 1 << 51)),
        ("cca", State::PRIVATE, Some(p)),
        ("cca", State::SHARED, Some(p | 1 << 47)),
        ("hyperv", State::SHARED, Some(p | 1 << 40)),
        ("pkvm", State::SHARED, Some(p)),
        ("s390", State::SHARED, Some(p)),
        ("pef", State::PRIVATE, Some(p)),
        ("pef", State::PLAIN, None),
    ];
    for (name, state, form) in rows {
        assert_eq!(plain(name).cpu_form(PhysAddr::new(p), state), form, "{name} {state}");
    }
}

#[test]
fn the_last_byte_of_memory_has_both_forms_and_both_decode() {
    for platform in PlatformName::ALL {
        let regime = plain(platform.name());
        let last = regime.memory_limit().raw();
        for &state in regime.states() {
            let Some(mark) = regime.cpu_mark(state) else { panic!("{platform} {state}") };
            let Some(sum) = last.checked_add(mark) else { continue };
            assert_eq!(regime.cpu_form(PhysAddr::new(last), state), Some(sum), "{platform}");
            assert_eq!(regime.decode_cpu(sum).map(|back| back.phys.raw()), Some(last));
            if let Some(addr) = regime.dma_form(Trust::Untrusted, state, last) {
                let back = regime.decode_dma(Trust::Untrusted, addr);
                assert_eq!(back.map(|back| back.bus), Some(last), "{platform} {state}");
            }
            if let Some(past) = last.checked_add(1) {
                assert_eq!(regime.cpu_form(PhysAddr::new(past), state), None, "{platform}");
            }
        }
    }
}

#[test]
fn numbers_that_no_machine_has_are_refused() {
    let none = Parameters::default();
    let wrong = [
        ("sme", Parameters { c_bit: Some(63), ..none }),
        ("snp", Parameters { c_bit: Some(3), ..none }),
        ("cca", Parameters { ipa_bits: Some(64), ..none }),
        ("tdx", Parameters { gpaw: Some(50), ..none }),
        ("snp-vtom", Parameters { vtom: Some(0x1_0000_1000), ..none }),
        ("pkvm", Parameters { granule: Some(0), ..none }),
    ];
    for (name, numbers) in wrong {
        assert!(PlatformName::from_name(name).unwrap().regime(&numbers).is_err(), "{name}");
        // What the platform does not use is nobody's mistake.
        if numbers.granule.is_none() {
            assert!(PlatformName::S390.regime(&numbers).is_ok());
        }
    }
}

#[test]
fn numbers_at_the_edge_are_taken() {
    let none = Parameters::default();
    let last = |name, numbers| regime(name, numbers).memory_limit().raw();
    for bit in [32, 62] {
        assert_eq!(last("sme", Parameters { c_bit: Some(bit), ..none }), (1 << bit) - 1);
        assert_eq!(last("sev", Parameters { c_bit: Some(bit), ..none }), (1 << bit) - 1);
        assert_eq!(last("hyperv", Parameters { vtom: Some(1 << bit), ..none }), (1 << bit) - 1);
    }
    for bits in [32, 52] {
        assert_eq!(last("cca", Parameters { ipa_bits: Some(bits), ..none }), (1 << (bits - 1)) - 1);
    }
    for size in [4096, 1 << 30] {
        assert_eq!(regime("tdx", Parameters { granule: Some(size), ..none }).granule(), size);
    }
    for (name, numbers) in [
        ("sme", Parameters { c_bit: Some(31), ..none }),
        ("cca", Parameters { ipa_bits: Some(31), ..none }),
        ("cca", Parameters { ipa_bits: Some(53), ..none }),
        ("snp-vtom", Parameters { vtom: Some(1 << 31), ..none }),
        ("snp-vtom", Parameters { vtom: Some(1 << 63), ..none }),
        ("pkvm", Parameters { granule: Some(2048), ..none }),
        ("pkvm", Parameters { granule: Some(1 << 31), ..none }),
        ("pkvm", Parameters { granule: Some(4097), ..none }),
    ] {
        assert!(PlatformName::from_name(name).unwrap().regime(&numbers).is_err(), "{numbers:?}");
    }
}

/// `(platform, what sharing leaves of the bytes, what reclaiming leaves)`.
#[test]
fn what_a_conversion_leaves_of_the_bytes() {
    use Contents::{Kept, Undefined, Zeroed};
    for (name, on_share, on_reclaim) in [
        ("sev", Undefined, Undefined),
        ("snp", Undefined, Undefined),
        ("snp-vtom", Undefined, Undefined),
        ("tdx", Undefined, Zeroed),
        ("cca", Undefined, Zeroed),
        ("pkvm", Kept, Kept),
        ("hyperv", Kept, Undefined),
        ("s390", Kept, Kept),
        ("pef", Zeroed, Zeroed),
    ] {
        let Regime::Guest(guest) = plain(name) else { panic!("{name} is a guest") };
        assert_eq!((guest.on_share, guest.on_reclaim), (on_share, on_reclaim), "{name}");
    }
}

#[test]
fn guests_alone_have_a_visibility_and_a_granule_of_their_own() {
    let large = Parameters { granule: Some(0x1_0000), ..Parameters::default() };
    for platform in PlatformName::ALL {
        assert_eq!(PlatformName::from_name(&platform.to_string()), Some(platform));
        let regime = platform.regime(&large).unwrap();
        let guest = !matches!(platform, PlatformName::Open | PlatformName::Sme);
        assert_eq!(regime.is_guest(), guest, "{platform}");
        assert_eq!(regime.granule(), if guest { 0x1_0000 } else { 4096 }, "{platform}");
        assert_eq!(regime.states().contains(&State::PRIVATE), guest, "{platform}");
    }
}

fn any_regime() -> impl Strategy<Value = Regime> {
    let numbers = (32..=62u32, 32..=52u32, prop_oneof![Just(48), Just(52)], 32..=62u32);
    (0..PlatformName::ALL.len(), numbers).prop_map(|(platform, (c_bit, ipa, gpaw, top))| {
        let numbers = Parameters {
            c_bit: Some(c_bit),
            ipa_bits: Some(ipa),
            gpaw: Some(gpaw),
            vtom: Some(1 << top),
            granule: None,
        };
        PlatformName::ALL[platform].regime(&numbers).unwrap()
    })
}

proptest! {
    #[test]
    fn decode_inverts_encode(regime in any_regime(), raw: u64, shift in 0..40u32) {
        let p = raw >> shift;
        for trust in [Trust::Untrusted, Trust::Accepted] {
            for &state in regime.states() {
                let Some(form) = regime.dma_form(trust, state, p) else { continue };
                let back = regime.decode_dma(trust, form).expect("a form decodes");
                prop_assert_eq!(back.bus, p);
                // The form tells the state, or two states have this very form.
                let alike = regime.states().iter()
                    .filter(|other| regime.dma_form(trust, **other, p) == Some(form)).count();
                prop_assert_eq!(back.state, (alike == 1).then_some(state));
            }
        }
        for &state in regime.states() {
            let Some(form) = regime.cpu_form(PhysAddr::new(p), state) else { continue };
            let back = regime.decode_cpu(form).expect("a form decodes");
            prop_assert_eq!(back.phys.raw(), p);
            let alike = regime.states().iter()
                .filter(|other| regime.cpu_form(PhysAddr::new(p), **other) == Some(form)).count();
            prop_assert_eq!(back.state, (alike == 1).then_some(state));
        }
    }

    #[test]
    fn what_decodes_was_encoded(regime in any_regime(), raw: u64, shift in 0..40u32) {
        let addr = DmaAddr::new(raw >> shift);
        for trust in [Trust::Untrusted, Trust::Accepted] {
            if let Some(back) = regime.decode_dma(trust, addr) {
                let forms = regime.states().iter()
                    .filter_map(|state| regime.dma_form(trust, *state, back.bus));
                prop_assert!(forms.into_iter().any(|form| form == addr));
            }
        }
    }
}
