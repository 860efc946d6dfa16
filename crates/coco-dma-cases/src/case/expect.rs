//! What a step expects, and what can be looked at after any step.

use coco_dma::plan;
use coco_dma::state::State;

use super::bytes::Bytes;
use super::machine::MachineSpec;
use super::ops::{Kind, Reasons, Rule};
use super::step::Names;
use super::vocabulary::{
    BIND_REASONS, BOOKS, Books, CONVERSION_REASONS, EVENTS, TRUTHS, bounce_reasons, direct_reasons,
    refuse_reasons, refuse_reasons_of_work,
};
use crate::read::{Node, Place, Reader, Table, Value, Wrong, lookup, size_of, text_of, unknown};

/// The true state of memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Truth {
    In(State),
    Unaccepted,
    Lost,
    Mixed,
}

/// A value that a step comes to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Fact {
    Number(u64),
    Flag(bool),
    Word(String),
    Words(Vec<String>),
}

/// What a step expects.
#[derive(Clone, Debug, Default)]
pub(crate) struct Expect {
    pub(crate) outcome: Option<&'static str>,
    pub(crate) reason: Option<String>,
    /// A mask, and what the address is under it.
    pub(crate) address_low: Option<(u64, u64)>,
    pub(crate) rules: Vec<plan::Rule>,
    pub(crate) bytes: Option<Bytes>,
    pub(crate) bytes_not: Option<Bytes>,
    pub(crate) facts: Vec<(&'static str, Fact)>,
    pub(crate) check: Check,
}

/// Something of a case by number: a memory or a pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Thing {
    Memory(usize),
    Pool(usize),
}

/// What can be looked at after any step.
#[derive(Clone, Debug, Default)]
pub(crate) struct Check {
    pub(crate) states: Vec<(Thing, Truth)>,
    pub(crate) metadata: Vec<(Thing, Books)>,
    pub(crate) pins: Vec<(usize, u64)>,
    pub(crate) used: Vec<(usize, u64)>,
    /// The most slots that ever were in use, of a pool.
    pub(crate) high_water: Vec<(usize, u64)>,
    pub(crate) open: Vec<(usize, bool)>,
    pub(crate) quarantine: Option<u64>,
    pub(crate) counters: Vec<CounterCheck>,
    pub(crate) shares: Option<u64>,
    pub(crate) reclaims: Option<u64>,
    pub(crate) events: Option<Vec<String>>,
    pub(crate) cache_work: Option<bool>,
}

/// One counter of one device.
#[derive(Clone, Debug)]
pub(crate) struct CounterCheck {
    pub(crate) device: usize,
    pub(crate) counter: &'static str,
    pub(crate) is: u64,
}

const COUNTERS: [&str; 7] = ["direct", "bounced", "refused", "finished", "lost", "live", "holds"];

/// Reads the table `expect` of a step.
pub(super) fn read(
    table: &Table,
    rule: &Rule,
    names: Names<'_>,
    machine: &MachineSpec,
) -> Result<Expect, Wrong> {
    let reader = Reader::new(table, format!("what '{}' expects", rule.op));
    let outcomes: Vec<_> = rule.outcomes.iter().map(|word| (*word, *word)).collect();
    let outcome = reader.word("outcome", &outcomes)?;
    let reason = reason(&reader, rule, outcome)?;
    let mut facts = Vec::new();
    for (key, kind) in rule.facts {
        let Some(node) = reader.node(key) else { continue };
        let fact = fact(node, key, kind)?;
        if let (Some(outcome), Some(only)) = (outcome, rule.only(key))
            && !only.contains(&outcome)
        {
            let text = format!("this cannot hold: '{outcome}' has no '{key}'");
            return Err(node.place.wrong(text));
        }
        if let (&"pool", Fact::Word(pool)) = (key, &fact) {
            names.pool(pool, &node.place)?;
        }
        facts.push((*key, fact));
    }
    let address_low = match reader.table("address-low")? {
        Some(_) if !rule.facts.iter().any(|(key, _)| *key == "address") => {
            let text = format!("'{}' has no address", rule.op);
            return Err(reader.place_of("address-low").wrong(text));
        }
        None => None,
        Some(table) => {
            let low = Reader::new(table, "address-low");
            let mask = low.need("mask", low.size("mask")?)?;
            let is = low.need("is", low.size("is")?)?;
            low.finish()?;
            if is & !mask != 0 {
                return Err(table.place.wrong("this cannot hold: 'is' has bits outside of 'mask'"));
            }
            Some((mask, is))
        }
    };
    let mut rules = Vec::new();
    for (name, place) in if rule.rules { reader.texts("rules")? } else { Vec::new() } {
        let Some(rule) = plan::Rule::ALL.iter().find(|rule| rule.name() == name) else {
            let names = plan::Rule::ALL.iter().map(|rule| rule.name());
            return Err(place.wrong(unknown("rule", name, names)));
        };
        rules.push(*rule);
    }
    let bytes = |key| -> Result<Option<Bytes>, Wrong> {
        if !rule.bytes {
            return Ok(None);
        }
        let Some(node) = reader.node(key) else { return Ok(None) };
        let bytes = Bytes::read(node, key)?;
        for name in bytes.names() {
            names.memory(name, &node.place)?;
        }
        Ok(Some(bytes))
    };
    let (bytes, bytes_not) = (bytes("bytes")?, bytes("bytes-not")?);
    let mut check = check(&reader, names, machine)?;
    if rule.facts.iter().any(|(fact, _)| *fact == "cache-work") {
        // A fact of the answer: nothing is done.
        check.cache_work = None;
    }
    reader.finish()?;
    Ok(Expect { outcome, reason, address_low, rules, bytes, bytes_not, facts, check })
}

fn reason(
    reader: &Reader<'_>,
    rule: &Rule,
    outcome: Option<&str>,
) -> Result<Option<String>, Wrong> {
    if rule.reasons == Reasons::None {
        return Ok(None);
    }
    let Some(word) = reader.text("reason")? else { return Ok(None) };
    let known: Vec<&str> = match (rule.reasons, outcome) {
        (Reasons::Conversion, _) => CONVERSION_REASONS.to_vec(),
        (Reasons::Bind, _) => BIND_REASONS.to_vec(),
        (_, Some("direct")) => direct_reasons(),
        (_, Some("bounce")) => bounce_reasons(),
        (_, Some("refuse")) if matches!(rule.op, "decide" | "protection") => refuse_reasons(),
        (_, Some("refuse")) => refuse_reasons_of_work(),
        // What was decided of the map or the allocation that it is about.
        (_, Some("allocate" | "done")) if rule.op == "decide" => {
            [direct_reasons(), bounce_reasons()].concat()
        }
        (_, Some("allocate" | "done")) => Vec::new(),
        _ => [direct_reasons(), bounce_reasons(), refuse_reasons()].concat(),
    };
    if known.contains(&word) {
        return Ok(Some(word.to_owned()));
    }
    let what = match outcome {
        Some(outcome) => format!("this cannot hold: unknown reason of '{outcome}'"),
        None => "unknown reason".to_owned(),
    };
    let text = unknown("reason", word, known.iter().copied());
    Err(reader.place_of("reason").wrong(text.replacen("unknown reason", &what, 1)))
}

fn fact(node: &Node, key: &str, kind: &Kind) -> Result<Fact, Wrong> {
    match (kind, &node.value) {
        (Kind::Number, _) => size_of(node, key).map(Fact::Number),
        (Kind::Flag, Value::Flag(flag)) => Ok(Fact::Flag(*flag)),
        (Kind::Flag, other) => {
            Err(node.place.wrong(format!("'{key}' is true or false, not {}", other.kind())))
        }
        (Kind::Word(words), _) => {
            let word = text_of(node, key)?;
            if !words.is_empty() && !words.contains(&word) {
                return Err(node.place.wrong(unknown(key, word, words.iter().copied())));
            }
            Ok(Fact::Word(word.to_owned()))
        }
        (Kind::Words, Value::List(list)) => {
            let words = list.iter().map(|node| text_of(node, key).map(str::to_owned));
            words.collect::<Result<_, _>>().map(Fact::Words)
        }
        (Kind::Words, other) => {
            Err(node.place.wrong(format!("'{key}' is a list, not {}", other.kind())))
        }
    }
}

/// Reads what can be looked at after any step.
pub(super) fn check(
    reader: &Reader<'_>,
    names: Names<'_>,
    machine: &MachineSpec,
) -> Result<Check, Wrong> {
    let mut check = Check {
        quarantine: reader.size("quarantine")?,
        shares: reader.size("shares")?,
        reclaims: reader.size("reclaims")?,
        cache_work: reader.flag("cache-work")?,
        ..Check::default()
    };
    for (name, place, node) in entries(reader, "states")? {
        let word = text_of(node, "states")?;
        let truth = lookup("state", word, &TRUTHS).map_err(|text| node.place.wrong(text))?;
        if let Truth::In(state) = truth
            && !machine.regime.states().contains(&state)
        {
            let text = format!("this cannot hold: no memory is {state} here");
            return Err(node.place.wrong(text));
        }
        check.states.push((names.thing(name, place)?, truth));
    }
    for (name, place, node) in entries(reader, "books")? {
        let word = text_of(node, "books")?;
        let metadata = lookup("state in the books", word, &BOOKS);
        let metadata = metadata.map_err(|text| node.place.wrong(text))?;
        check.metadata.push((names.thing(name, place)?, metadata));
    }
    for (name, place, node) in entries(reader, "pins")? {
        check.pins.push((names.memory(name, place)?, size_of(node, "pins")?));
    }
    for (name, place, node) in entries(reader, "used")? {
        check.used.push((names.pool(name, place)?, size_of(node, "used")?));
    }
    for (name, place, node) in entries(reader, "high-water")? {
        check.high_water.push((names.pool(name, place)?, size_of(node, "high-water")?));
    }
    for (name, place, node) in entries(reader, "open")? {
        let Value::Flag(open) = node.value else {
            return Err(node.place.wrong("'open' is true or false"));
        };
        check.open.push((names.pool(name, place)?, open));
    }
    for (name, place, node) in entries(reader, "counters")? {
        let device = names.device(name, place)?;
        let Value::Table(table) = &node.value else {
            return Err(node.place.wrong("the counters of a device are a table"));
        };
        let each = Reader::new(table, "the counters");
        for counter in COUNTERS {
            if let Some(is) = each.size(counter)? {
                check.counters.push(CounterCheck { device, counter, is });
            }
        }
        each.finish()?;
    }
    if reader.node("events").is_some() {
        let mut events = Vec::new();
        for (event, place) in reader.texts("events")? {
            if !EVENTS.contains(&event) {
                return Err(place.wrong(unknown("event", event, EVENTS.iter().copied())));
            }
            events.push(event.to_owned());
        }
        check.events = Some(events);
    }
    Ok(check)
}

fn entries<'t>(
    reader: &Reader<'t>,
    key: &'static str,
) -> Result<Vec<(&'t str, &'t Place, &'t Node)>, Wrong> {
    let table = reader.table(key)?;
    let entries = table.map(|table| table.entries.as_slice()).unwrap_or_default();
    Ok(entries.iter().map(|(name, place, node)| (name.as_str(), place, node)).collect())
}
