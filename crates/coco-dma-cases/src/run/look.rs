//! Looking at everything after a step: truth, books, pins, pools, counters, events.

use coco_dma::addr::{PhysAddr, PhysRange};
use coco_dma::ledger::{GranuleState as Booked, RangeState as Peeked};
use coco_dma::state::{State, Visibility};
use coco_dma_sim::{Call, GranuleState};

use super::stream::wide;
use super::world::World;
use super::{Failed, Witness};
use crate::case::{BOOKS, Books, Check, CounterCheck, Thing, Truth, whole, word_of};
use crate::read::Place;

/// What one step left behind.
pub(super) struct StepTrace {
    pub(super) asked: Asked,
    pub(super) events: Vec<&'static str>,
    pub(super) cache_work: bool,
}

/// How often the platform was asked to convert, whatever came of it.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Asked {
    shares: u64,
    reclaims: u64,
}

impl Asked {
    /// With these calls too.
    pub(super) fn with(mut self, calls: &[Call]) -> Self {
        for call in calls {
            match call {
                Call::Convert { to: State::SHARED, .. } => self.shares += 1,
                Call::Convert { to: State::PRIVATE, .. } => self.reclaims += 1,
                _ => {}
            }
        }
        self
    }
}

/// Whether memory is really as expected.
pub(super) fn truths(world: &World<'_>, check: &Check, place: &Place) -> Result<(), Failed> {
    for (thing, truth) in &check.states {
        let found = world.thing(*thing).map(|run| world.truth_of(run));
        if found != Some(*truth) {
            let expected = format!("that '{}' is {}", world.called(*thing), truth.describe());
            let got = found.map_or_else(|| "nothing".to_owned(), Truth::describe);
            return Err(Failed { witness: Witness::Machine, place: place.clone(), expected, got });
        }
    }
    Ok(())
}

/// Whether the layer's books and words are as expected. Without `seen` it is the end.
pub(super) fn look(
    world: &World<'_>,
    check: &Check,
    seen: Option<&StepTrace>,
    place: &Place,
) -> Result<(), Failed> {
    let fail = |expected: String, got: String| {
        Err(Failed { witness: Witness::Layer, place: place.clone(), expected, got })
    };
    for (thing, metadata) in &check.metadata {
        let found = world.thing(*thing).map(|run| world.metadata_of(run));
        if found != Some(*metadata) {
            let name = world.called(*thing);
            return fail(
                format!("that the books have '{name}' {}", word_of(*metadata, &BOOKS)),
                found.map_or("nothing", |found| word_of(found, &BOOKS)).to_owned(),
            );
        }
    }
    for (memory, pins) in &check.pins {
        let found = world.thing(Thing::Memory(*memory)).map_or(0, |run| world.pins_of(run));
        if found != *pins {
            let name = world.called(Thing::Memory(*memory));
            return fail(format!("{pins} pins on '{name}'"), format!("{found}"));
        }
    }
    for (index, used) in &check.used {
        let found = world.ground.pools.get(*index).map_or(0, |pool| wide(pool.used()));
        if found != *used {
            let name = world.called(Thing::Pool(*index));
            return fail(format!("{used} slots of '{name}' in use"), format!("{found}"));
        }
    }
    for (index, most) in &check.high_water {
        let found = world.ground.pools.get(*index).map_or(0, |pool| wide(pool.high_water()));
        if found != *most {
            let name = world.called(Thing::Pool(*index));
            return fail(
                format!("that {most} slots of '{name}' were in use at most"),
                format!("{found}"),
            );
        }
    }
    for (index, open) in &check.open {
        let found = world.ground.pools.get(*index).is_some_and(|pool| pool.is_open());
        if found != *open {
            let name = world.called(Thing::Pool(*index));
            return fail(format!("that '{name}' is open: {open}"), format!("{found}"));
        }
    }
    if let Some(bytes) = check.quarantine {
        let found = world.ground.dma.ledger().quarantined();
        if found != bytes {
            return fail(format!("{bytes:#x} bytes in quarantine"), format!("{found:#x}"));
        }
    }
    for CounterCheck { device, counter, is } in &check.counters {
        let found = world.counter(*device, counter);
        if found != Some(*is) {
            let name = world.case.devices.get(*device).map_or("", |device| &device.name);
            let found = found.map_or_else(|| "no such device".to_owned(), |n| n.to_string());
            return fail(format!("{name}: {counter} {is}"), format!("{counter} {found}"));
        }
    }
    let asked = seen.map_or(world.asked, |seen| seen.asked);
    for (what, wanted, found) in
        [("shares", check.shares, asked.shares), ("reclaims", check.reclaims, asked.reclaims)]
    {
        if let Some(wanted) = wanted.filter(|wanted| *wanted != found) {
            return fail(format!("{wanted} {what}"), format!("{found}"));
        }
    }
    let Some(seen) = seen else { return Ok(()) };
    if let Some(events) = &check.events
        && *events != seen.events
    {
        let (wanted, got) = (events.join(", "), seen.events.join(", "));
        return fail(format!("the events [{wanted}]"), format!("[{got}]"));
    }
    match check.cache_work {
        Some(wanted) if wanted != seen.cache_work => {
            fail(format!("cache work: {wanted}"), format!("{}", seen.cache_work))
        }
        _ => Ok(()),
    }
}

impl Truth {
    pub(super) fn describe(self) -> String {
        match self {
            Self::In(state) => state.to_string(),
            Self::Unaccepted => "unaccepted".to_owned(),
            Self::Lost => "lost".to_owned(),
            Self::Mixed => "mixed".to_owned(),
        }
    }
}

/// The truth of one granule.
pub(super) fn truth(state: GranuleState) -> Truth {
    match state {
        GranuleState::In(state) => Truth::In(state),
        GranuleState::Unaccepted => Truth::Unaccepted,
        GranuleState::Lost => Truth::Lost,
    }
}

impl World<'_> {
    fn called(&self, thing: Thing) -> &str {
        let name = match thing {
            Thing::Memory(index) => self.case.memories.get(index).map(|memory| &memory.name),
            Thing::Pool(index) => self.case.pools.get(index).map(|pool| &pool.name),
        };
        name.map_or("", String::as_str)
    }

    /// The granules of a thing.
    pub(super) fn thing(&self, thing: Thing) -> Option<PhysRange> {
        let run = match thing {
            Thing::Memory(index) => self.buffers.get(index)?.range?,
            Thing::Pool(index) => self.case.pools.get(index)?.range,
        };
        whole(run, self.case.machine.regime.granule())
    }

    /// The first bytes of the granules of a run.
    pub(super) fn granules(&self, run: PhysRange) -> impl Iterator<Item = u64> + use<> {
        let granule = self.case.machine.regime.granule();
        let base = run.base().raw() & !(granule - 1);
        let count = (run.last().raw() - base) / granule + 1;
        (0..count).map(move |index| base + index * granule)
    }

    /// The true state of a run.
    pub(super) fn truth_of(&self, run: PhysRange) -> Truth {
        let machine = self.ground.machine;
        let states = self.granules(run).filter_map(|at| machine.state(PhysAddr::new(at)));
        let mut truths = states.map(truth);
        let first = truths.next().unwrap_or(Truth::Mixed);
        if truths.all(|truth| truth == first) { first } else { Truth::Mixed }
    }

    /// What the books have of a run.
    fn metadata_of(&self, run: PhysRange) -> Books {
        match self.ground.dma.ledger().peek(run) {
            Peeked::Untracked => Books::Untracked,
            Peeked::Mixed { .. } | Peeked::Border { .. } => Books::Mixed,
            Peeked::Foreign(Visibility::Private) => Books::ForeignPrivate,
            Peeked::Foreign(Visibility::Shared) => Books::ForeignShared,
            Peeked::Uniform(Booked::Private) => Books::Private,
            Peeked::Uniform(Booked::Shared) => Books::Shared,
            Peeked::Uniform(Booked::Converting) => Books::Converting,
            Peeked::Uniform(Booked::Quarantined) => Books::Quarantined,
            Peeked::Uniform(Booked::Unaccepted) => Books::Unaccepted,
            Peeked::Uniform(Booked::Encrypted) => Books::Encrypted,
            Peeked::Uniform(Booked::Plain) => Books::Plain,
            Peeked::Uniform(Booked::Absent) => Books::Absent,
        }
    }

    /// The most pins on a granule of a run.
    pub(super) fn pins_of(&self, run: PhysRange) -> u64 {
        let ledger = self.ground.dma.ledger();
        let pins = |at| ledger.granule(PhysAddr::new(at)).map_or(0, |granule| wide(granule.pins));
        self.granules(run).map(pins).max().unwrap_or(0)
    }

    fn counter(&self, device: usize, counter: &str) -> Option<u64> {
        let device = self.devices.get(device)?.as_ref()?;
        let now = device.counters();
        let number = match counter {
            "direct" => now.direct,
            "bounced" => now.bounced,
            "refused" => now.refused,
            "finished" => now.finished,
            "lost" => now.lost,
            "live" => now.live(),
            "holds" => device.holds(),
            _ => return None,
        };
        Some(wide(number))
    }
}
