//! Comparing what a step came to with what it expects.

use coco_dma::plan::Rule;

use super::world::World;
use super::{Failed, Got, Witness};
use crate::case::{Bytes, Fact, Step};

/// Outcomes that a step has to expect in words.
const BAD: [&str; 9] = [
    "refuse",
    "none",
    "left",
    "still-mapped",
    "not-this-device",
    "fault",
    "ciphertext",
    "corrupted",
    "lost",
];

/// What came, in short.
pub(super) fn short(got: &Got) -> String {
    let mut text = got.outcome.to_owned();
    if let Some(reason) = &got.reason {
        text += &format!(" ({reason})");
    }
    for (key, fact) in &got.facts {
        text += &format!(", {key} {}", written(fact));
    }
    text
}

fn written(fact: &Fact) -> String {
    match fact {
        Fact::Number(number) => format!("{number:#x}"),
        Fact::Flag(flag) => flag.to_string(),
        Fact::Word(word) => word.clone(),
        Fact::Words(words) => format!("[{}]", words.join(", ")),
    }
}

fn failed(step: &Step, expected: &str, got: String) -> Failed {
    let (witness, place) = (Witness::of(&step.op), step.place.clone());
    Failed { witness, place, expected: format!("{}: {expected}", step.name), got }
}

/// Whether the step came to the outcome that it expects, for that reason.
pub(super) fn outcome(step: &Step, got: &Got) -> Result<(), Failed> {
    let expect = &step.expect;
    let whole = short(got);
    let fail = |expected: String, got: String| Err(failed(step, &expected, got));
    match expect.outcome {
        Some(outcome) if outcome != got.outcome => return fail(outcome.to_owned(), whole),
        None if BAD.contains(&got.outcome) => {
            return fail("that it goes through".to_owned(), whole);
        }
        _ => {}
    }
    if let Some(reason) = &expect.reason
        && Some(reason) != got.reason.as_ref()
    {
        return fail(format!("{} ({reason})", got.outcome), whole);
    }
    for (key, wanted) in &expect.facts {
        let found = got.facts.iter().find(|(known, _)| known == key).map(|(_, fact)| fact);
        if found != Some(wanted) {
            return fail(format!("{key} {}", written(wanted)), whole);
        }
    }
    if let Some((mask, is)) = expect.address_low {
        let address = got.facts.iter().find_map(|(key, fact)| match (*key, fact) {
            ("address", Fact::Number(address)) => Some(*address),
            _ => None,
        });
        if address.map(|address| address & mask) != Some(is) {
            return fail(format!("an address that is {is:#x} under {mask:#x}"), whole);
        }
    }
    let mut rules = got.rules.0.iter();
    for wanted in &expect.rules {
        if !rules.any(|(rule, _)| rule == wanted) {
            let names = |rules: &mut dyn Iterator<Item = &Rule>| -> String {
                rules.map(|rule| rule.name()).collect::<Vec<_>>().join(", ")
            };
            let all = names(&mut got.rules.0.iter().map(|(rule, _)| rule));
            let expected = format!("the rules {}", names(&mut expect.rules.iter()));
            return fail(expected, format!("the rules {all}"));
        }
    }
    Ok(())
}

/// Whether the step found the bytes that it expects.
pub(super) fn bytes(world: &World<'_>, step: &Step, got: &Got) -> Result<(), Failed> {
    let expect = &step.expect;
    found(world, got, expect.bytes.as_ref(), expect.bytes_not.as_ref())
        .map_err(|(expected, got)| failed(step, &expected, got))
}

fn found(
    world: &World<'_>,
    got: &Got,
    wanted: Option<&Bytes>,
    unwanted: Option<&Bytes>,
) -> Result<(), (String, String)> {
    let found = got.bytes.as_deref().unwrap_or_default();
    if let Some(wanted) = wanted {
        let wanted = world.make(wanted, found.len());
        let differs = wanted.iter().zip(found).position(|(wanted, found)| wanted != found);
        if let Some(at) = differs {
            let part = |bytes: &[u8]| -> String {
                let part = bytes.iter().skip(at).take(16);
                part.map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(" ")
            };
            return Err((
                format!("from byte {at} on {}", part(&wanted)),
                format!("from byte {at} on {}", part(found)),
            ));
        }
    }
    if let Some(unwanted) = unwanted {
        let len = unwanted.own_len().and_then(|len| usize::try_from(len).ok()).unwrap_or(16);
        let unwanted = world.make(unwanted, len.max(1));
        if let Some(at) = found.windows(unwanted.len()).position(|window| window == unwanted) {
            return Err((
                "bytes without what must not be there".to_owned(),
                format!("it lies at byte {at}"),
            ));
        }
    }
    Ok(())
}
