//! The table of verdicts says what `plan` says, and a map lands where plan says: asked both ways
//! for every device, every set of pools and every memory of [`world`].
// UNSAFETY: raw buffers are mapped.
#![expect(unsafe_code)]

mod question;
mod world;

use std::collections::BTreeSet;
use std::string::String;
use std::vec;
use std::vec::Vec;

use core::ptr::NonNull;

use question::Told;
use question::ask_all;
use world::Ground;
use world::Machine;
use world::NoEntries;
use world::POOL;
use world::RAM;
use world::around;
use world::limits;
use world::peers;
use world::run;
use world::sets;
use world::window;
use world::words;

use crate::addr::BusRanges;
use crate::attrs::Attrs;
use crate::device::Attested;
use crate::device::Device;
use crate::device::Endpoint;
use crate::dma::Dma;
use crate::iommu::Domain;
use crate::iommu::IovaWindow;
use crate::ledger::Initial;
use crate::ledger::Ledger;
use crate::ledger::Tracked;
use crate::plan;
use crate::plan::Plan;
use crate::pool::Pool;
use crate::regime::Parameters;
use crate::regime::PlatformName;
use crate::regime::Regime;
use crate::state::Cipher;
use crate::state::Direction;
use crate::state::PoolLabel;
use crate::state::PoolUse;
use crate::state::State;
use crate::state::Trust;
use crate::state::Visibility;

/// Every device that there is with these pools.
fn bind_all(
    dma: &Dma<'_, Machine>,
    pools: &[&Pool<'_>],
    mut with: impl FnMut(&Device<'_, Machine>),
) {
    let words = words(Domain::words(0x10_0000, 4096));
    let domain = Domain::new(&NoEntries, IovaWindow::new(0x10_0000, 0x10_0000).unwrap(), &words);
    let (domain, windows) = (domain.unwrap(), [window()]);
    let flags = [false, true];
    for (number, limits) in limits().into_iter().enumerate() {
        // Rarer things are asked of two kinds of limits only.
        let fronts = if number % 5 < 2 { 3 } else { 1 };
        for (trust, front) in [Trust::Untrusted, Trust::Accepted]
            .into_iter()
            .flat_map(|trust| (0..fronts).map(move |front| (trust, front)))
        {
            for (forced, coherent) in flags.into_iter().flat_map(|a| flags.map(|b| (a, b))) {
                let endpoint = Endpoint::new("device").pools(pools);
                let endpoint = if forced { endpoint.force_bounce() } else { endpoint };
                let endpoint = if number % 5 == 1 { endpoint.on_node(1) } else { endpoint };
                let endpoint = if coherent { endpoint } else { endpoint.not_coherent() };
                let endpoint = match trust {
                    // SAFETY: there is no device.
                    Trust::Accepted => endpoint.accepted(unsafe { Attested::vouch() }),
                    Trust::Untrusted => endpoint,
                };
                let endpoint = match front {
                    0 => endpoint,
                    1 => endpoint.bus(BusRanges::new(&windows)),
                    _ => endpoint.translated(&domain).external_facing(),
                };
                // What cannot be bound maps nothing.
                if let Ok(device) = dma.bind(endpoint, limits) {
                    with(&device);
                }
            }
        }
    }
}

/// Compares on one machine; what the table made, as kinds of memory and reasons.
fn compare_on(platform: PlatformName) -> BTreeSet<String> {
    let regime = platform.regime(&Parameters::default()).unwrap();
    let (machine, told, mut made) = (Machine::new(regime), Told::default(), BTreeSet::new());
    let (granule, storage) = (regime.granule(), words(64));
    let granules = |first, count| run(RAM + first * granule, count * granule).unwrap();
    let own = |initial| Tracked::new(granules(0, 12), granule, initial, &storage).unwrap();
    let foreign = |first, visibility| Tracked::foreign(granules(first, 1), visibility);
    let ranges = match regime {
        Regime::Open => vec![],
        Regime::Host(_) => vec![own(Initial::Encrypted)],
        Regime::Guest(_) => vec![
            own(Initial::Private),
            foreign(12, Visibility::Private),
            foreign(13, Visibility::Shared),
        ],
    };
    let ledger = Ledger::new(&ranges).unwrap();
    match regime {
        Regime::Open => {}
        Regime::Host(_) => ledger.declare_cipher(granules(3, 3), Cipher::Plain).unwrap(),
        Regime::Guest(_) => {
            ledger.declare(granules(3, 3), Visibility::Shared).unwrap();
            let conversion = ledger.begin(granules(7, 1), Visibility::Private).unwrap();
            ledger.settle(conversion, 0, granule, Visibility::Shared);
            // Never settled.
            let _ = ledger.begin(granules(6, 1), Visibility::Private).unwrap();
        }
    }
    for set in sets(&regime) {
        let mut grounds = [Ground::new(), Ground::new()];
        let specs = set.into_iter().enumerate();
        let made_pools = grounds.iter_mut().zip(specs);
        let pools: Vec<Pool<'_>> =
            made_pools.map(|(ground, (number, spec))| ground.pool(number, spec)).collect();
        let pools: Vec<&Pool<'_>> = pools.iter().collect();
        let views: Vec<NonNull<u8>> =
            pools.iter().map(|pool| pool.bytes().at(0, POOL).unwrap()).collect();
        let dma = Dma::new(&machine, &[]).with_ledger(ledger).with_observer(&told);
        let peers = peers(granule);
        let dma = dma.with_peers(&peers);
        bind_all(&dma, &pools, |device| ask_all(&machine, device, &told, &views, &mut made));
        assert!(pools.iter().all(|pool| pool.used() == 0));
    }
    made
}

/// A pool of the machine lies in the books, which still say that its memory is private: its label
/// says what lies in it.
#[test]
fn what_lies_in_a_pool_is_not_in_the_table() {
    let regime = PlatformName::Tdx.regime(&Parameters::default()).unwrap();
    let (machine, told, mut made) = (Machine::new(regime), Told::default(), BTreeSet::new());
    let (granule, storage) = (regime.granule(), words(64));
    let ranges = [around(granule)]
        .map(|range| Tracked::new(range, granule, Initial::Private, &storage).unwrap());
    let mut ground = Ground::new();
    let pools = [ground.pool(0, (PoolLabel::GuestShared, false, PoolUse::All))];
    let views = [pools[0].bytes().at(0, POOL).unwrap()];
    let dma = Dma::new(&machine, &pools).with_ledger(Ledger::new(&ranges).unwrap());
    let dma = dma.with_observer(&told);
    bind_all(&dma, &[], |device| ask_all(&machine, device, &told, &views, &mut made));
    assert!(made.contains("private private-memory"), "beside the pool: {made:?}");
}

/// From the lowest byte of all pools to the highest is everything: nothing is known to lie in none.
#[test]
fn pools_at_both_ends_of_the_addresses_leave_no_window_between_them() {
    let machine = Machine::new(Regime::Open);
    let storage = words(65);
    let ram = run(0, 0x10_0000).unwrap();
    let ranges = [Tracked::new(ram, 0x1000, Initial::Private, &storage).unwrap()];
    let (mut low, mut high) = (Ground::new(), Ground::new());
    let spec = (PoolLabel::Ordinary, true, PoolUse::All);
    let top = u64::MAX - (POOL as u64 - 1);
    let pools = [low.pool_at(0, 0, spec), high.pool_at(1, top, spec)];
    let dma = Dma::new(&machine, &pools).with_ledger(Ledger::new(&ranges).unwrap());
    bind_all(&dma, &[], |device| {
        let (inside, outside) = (run(0x1000, 0x100), run(0x9_0000, 0x100));
        for range in [inside, outside] {
            let request = device.request(range, 0x100, Direction::Both, Attrs::NONE);
            let bounced = matches!(plan::map(&request, &mut ()), Plan::Bounce { .. });
            assert!(bounced || device.table_entry(range, 0x100).is_none(), "{device:?}");
        }
    });
}

#[test]
fn the_table_says_what_plan_says() {
    for platform in PlatformName::ALL {
        let made = compare_on(platform);
        let made: Vec<&str> = made.iter().map(String::as_str).collect();
        // What depends on nothing but the kind of memory is made by the table, and nothing else.
        let regime = platform.regime(&Parameters::default()).unwrap();
        let mut wanted = vec!["untracked forced", "untracked restricted-pool"];
        match regime {
            Regime::Open => {}
            Regime::Host(_) => wanted.extend([
                "encrypted forced",
                "encrypted restricted-pool",
                "plain forced",
                "plain restricted-pool",
            ]),
            Regime::Guest(_) => wanted.extend([
                "private forced",
                "private private-memory",
                "private restricted-pool",
                "shared forced",
                "shared restricted-pool",
                "untracked private-memory",
            ]),
        }
        let no_form = regime.dma_mark(Trust::Accepted, State::SHARED).is_none();
        if regime.has_accepted_devices() && no_form {
            wanted.push("shared shared-unreachable");
        }
        wanted.sort_unstable();
        assert_eq!(made, wanted, "{platform:?}");
    }
}
