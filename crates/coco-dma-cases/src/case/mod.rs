//! A case as data: read, merged with an entry of its matrix, and checked against itself.

mod bytes;
mod devices;
mod expect;
mod layout;
mod machine;
mod matrix;
mod operation;
mod ops;
mod step;
mod things;
mod vocabulary;

pub(crate) use bytes::Bytes;
pub(crate) use devices::DeviceSpec;
pub(crate) use expect::{Check, CounterCheck, Fact, Thing, Truth};
pub(crate) use layout::{Layout, whole};
pub(crate) use machine::MachineSpec;
pub(crate) use operation::{Alive, AllocOf, MapOf, Operation, Question};
pub(crate) use ops::{Op, Protected, Target};
pub(crate) use step::{End, Step, known};
pub(crate) use things::{MemorySpec, MemoryState, PoolSpec};
pub(crate) use vocabulary::{BOOKS, Books, CACHES, CONTEXTS, KINDS, word_of};

use crate::read::{Place, Reader, Table, Wrong, parse};

/// The most pools that a case may have.
pub(crate) const MOST_POOLS: usize = 64;
/// The most devices, memories and entries of a matrix that a file may have, and the most steps.
pub(crate) const MOST_THINGS: usize = 1000;
/// The most pools of a case that builds nothing.
const MOST_ASKED_POOLS: usize = 4096;

/// One case: a file, or one entry of the matrix in it.
#[derive(Clone, Debug)]
pub struct Case {
    /// Its name; with its entry, `NAME/ENTRY`.
    pub name: String,
    /// What holds.
    pub title: String,
    /// Where it comes from.
    pub source: String,
    /// The reference row of which it is the case.
    pub id: Option<String>,
    /// Further rows that it touches.
    pub also: Vec<String>,
    /// What Linux 7.3 does, where that is something else.
    pub linux: Option<String>,
    /// Why ours is as it is.
    pub why: Option<String>,
    /// Where it stands.
    pub place: Place,
    pub(crate) machine: MachineSpec,
    pub(crate) devices: Vec<DeviceSpec>,
    pub(crate) pools: Vec<PoolSpec>,
    pub(crate) memories: Vec<MemorySpec>,
    pub(crate) layout: Layout,
    pub(crate) steps: Vec<Step>,
    pub(crate) end: End,
}

/// Reads the cases of a file: one, or one for each entry of its matrix. `name` is how messages
/// name the file.
pub fn read_file(name: &str, text: &str) -> Result<Vec<Case>, Wrong> {
    let table = parse(name, text)?;
    let entries = matrix::entries(table)?;
    let read = |entry: &matrix::Entry| {
        read_case(&entry.table, entry)
            .map_err(|wrong| matrix::in_entry(entry.name.as_deref(), wrong))
    };
    entries.iter().map(read).collect()
}

fn read_case(table: &Table, entry: &matrix::Entry) -> Result<Case, Wrong> {
    let reader = Reader::new(table, "the case");
    let name = reader.need("name", reader.text("name")?)?;
    let good = |c: char| c.is_ascii_alphanumeric() || c == '-';
    if name.is_empty() || !name.chars().all(good) {
        return Err(reader.place_of("name").wrong("a name is made of letters, digits and dashes"));
    }
    let title = reader.need("title", reader.text("title")?)?.to_owned();
    let source = reader.need("source", reader.text("source")?)?.to_owned();
    let origins = ["mid:", "commit:", "doc:"];
    if source != "own" && !origins.iter().any(|origin| source.starts_with(origin)) {
        let text = "a source is mid:MESSAGE-ID, commit:HASH, doc:WHERE or own";
        return Err(reader.place_of("source").wrong(text));
    }
    let id = reader.text("id")?.map(str::to_owned);
    let also = reader.texts("also")?.into_iter().map(|(id, _)| id.to_owned()).collect();
    let linux = reader.text("linux")?.map(str::to_owned);
    let why = reader.text("why")?.map(str::to_owned);
    if linux.is_some() && why.is_none() {
        return Err(reader.place_of("linux").wrong("what Linux does needs 'why' ours differs"));
    }
    let machine = machine::read(reader.need("machine", reader.table("machine")?)?)?;
    // What is only asked about takes no memory.
    let most = if machine.plan_only { MOST_ASKED_POOLS } else { MOST_POOLS };
    let mut pools = things::pools(&limited(&reader, "pool", most)?)?;
    let memories = things::memories(&limited(&reader, "memory", MOST_THINGS)?, &machine)?;
    let devices = devices::read(&limited(&reader, "device", MOST_THINGS)?, &mut pools, &machine)?;
    let layout = layout::lay_out(&machine, &pools, &memories)?;
    let names = step::Names::new(&devices, &pools, &memories);
    let steps = limited(&reader, "step", MOST_THINGS)?;
    let steps = step::steps(&steps, names, &machine, entry)?;
    let end = step::end(reader.table("end")?, names, &machine, &steps, &table.place)?;
    reader.finish()?;
    let name = match &entry.name {
        Some(entry) => format!("{name}/{entry}"),
        None => name.to_owned(),
    };
    let place = entry.place.clone();
    let case = Case {
        name,
        title,
        source,
        id,
        also,
        linux,
        why,
        place,
        machine,
        devices,
        pools,
        memories,
        layout,
        steps,
        end,
    };
    Ok(case)
}

fn limited<'t>(
    reader: &Reader<'t>,
    key: &'static str,
    most: usize,
) -> Result<Vec<&'t Table>, Wrong> {
    let tables = reader.tables(key)?;
    match tables.get(most) {
        Some(table) => Err(table.place.wrong(format!(
            "this is {key} {} of {}; a case has at most {most}",
            most + 1,
            tables.len()
        ))),
        None => Ok(tables),
    }
}
