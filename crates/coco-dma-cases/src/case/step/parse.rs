//! Reading what a step does.

use std::collections::HashSet;

use coco_dma::addr::{PhysAddr, PhysRange};
use coco_dma::attrs::Attrs;
use coco_dma::plan::AllocKind;
use coco_dma::platform::ConvertError;
use coco_dma::platform::ConvertVerdict;
use coco_dma::state::{Context, Direction, State, Visibility};
use coco_dma_sim::{Really, Refusal};

use super::Names;
use crate::case::bytes::Bytes;
use crate::case::machine::MachineSpec;
use crate::case::ops::{Op, Protected, Target};
use crate::case::vocabulary::{CACHES, CONTEXTS, DIRECTIONS, KINDS, VISIBILITY};
use crate::read::{Reader, Value, Wrong, lookup, size_of, text_of, unknown};

/// The most bytes that one step touches.
const MOST_BYTES: u64 = 16 << 20;

/// What somebody who fails says.
const SAYS: [(&str, bool); 2] = [("ok", true), ("error", false)];

/// What all of a step's readers know.
pub(super) struct Around<'a, 't> {
    pub(super) reader: &'a Reader<'t>,
    pub(super) names: Names<'a>,
    pub(super) machine: &'a MachineSpec,
}

pub(super) fn op(
    reader: &Reader<'_>,
    op: &'static str,
    names: Names<'_>,
    machine: &MachineSpec,
    made: &mut HashSet<String>,
) -> Result<Op, Wrong> {
    let around = Around { reader, names, machine };
    let device = || around.device("device");
    let name = || reader.text("as").map(|name| name.map(str::to_owned));
    let op = match op {
        "map" => around.map(name()?)?,
        "map-list" => {
            let mut memories = Vec::new();
            for (name, place) in reader.texts("memories")? {
                memories.push(names.memory(name, place)?);
            }
            let (direction, attrs) = (around.direction()?, around.attrs()?);
            Op::MapList { device: device()?, memories, direction, attrs, name: name()? }
        }
        "unmap" => Op::Unmap {
            map: around.made("map", made)?,
            by: around.given_device()?,
            written: reader.size("written")?,
        },
        "sync-for-cpu" | "sync-for-device" => Op::Sync {
            of: match reader.node("alloc") {
                Some(_) => Target::Alloc(around.made("alloc", made)?),
                None => Target::Map(around.made("map", made)?),
            },
            for_device: op == "sync-for-device",
            offset: reader.size("offset")?.unwrap_or(0),
            size: reader.size("size")?,
        },
        "alloc" => Op::Alloc {
            device: device()?,
            size: reader.need("size", reader.size("size")?)?,
            kind: around.kind()?,
            attrs: around.attrs()?,
            context: around.context()?,
            align: reader.size("align")?.unwrap_or(1),
            name: name()?,
        },
        "free" => Op::Free {
            alloc: around.made("alloc", made)?,
            by: around.given_device()?,
            context: around.context()?,
        },
        "share" | "reclaim" => {
            let (memory, offset, size) = around.part()?;
            let to = if op == "share" { Visibility::Shared } else { Visibility::Private };
            Op::Convert { memory, offset, size, to }
        }
        "add-memory" | "remove-memory" => Op::Plug { run: around.late()?, add: op == "add-memory" },
        "grow" => Op::Grow(around.pool()?),
        "shrink" => Op::Shrink(around.pool()?),
        "refill" => Op::Refill,
        "retry-quarantine" => {
            Op::Retry(usize::try_from(reader.size("tries")?.unwrap_or(1)).unwrap_or(usize::MAX))
        }
        "reclaim-all" => Op::ReclaimAll,
        "allow-sharing" => Op::AllowSharing,
        "bind" => Op::Bind(around.unbound("device")?),
        "rebind" => Op::Rebind { device: device()?, to: around.unbound("to")? },
        "revoke" => Op::Revoke(device()?),
        "lose-trust" => Op::LoseTrust(device()?),
        "ask" => Op::Ask(device()?),
        "device-read" | "device-write" => around.device_access(op == "device-write", made)?,
        "host-read" | "host-write" => {
            let (target, offset, size, write) = around.access(op == "host-write", made)?;
            if matches!(target, Target::Map(_) | Target::Mapping(_)) {
                let text = "a host touches a 'memory', a 'pool', an 'alloc' or an 'address'";
                return Err(reader.place().wrong(text));
            }
            Op::HostAccess { target, offset, size, write }
        }
        "driver-read" | "driver-write" => {
            let (target, offset, size, write) = around.access(op == "driver-write", made)?;
            if !matches!(target, Target::Memory(_) | Target::Alloc(_) | Target::Mapping(_)) {
                let text = "a driver touches a 'memory', an 'alloc' or a 'mapping'";
                return Err(reader.place().wrong(text));
            }
            Op::DriverAccess { target, offset, size, write }
        }
        "fail-conversion" => around.fail_conversion()?,
        "refuse-conversions" => Op::RefuseConversions {
            to: reader.need("to", reader.word("to", &VISIBILITY)?)?,
            how: reader
                .word("how", &[("unchanged", Refusal::Unchanged), ("in-doubt", Refusal::InDoubt)])?
                .unwrap_or(Refusal::Unchanged),
        },
        "fail-unmap" => Op::FailUnmap {
            skip: reader.size("skip")?.unwrap_or(0),
            claims: reader.word("says", &SAYS)?.unwrap_or(false),
        },
        "fail-map" => Op::FailMap(reader.size("skip")?.unwrap_or(0)),
        "fail-view" => Op::FailView(reader.size("skip")?.unwrap_or(0)),
        "heal" => Op::Heal,
        "protection" => around.protection(made)?,
        "decide" => around.decide()?,
        "mmap" => Op::Mmap {
            alloc: around.made("alloc", made)?,
            offset: reader.size("offset")?.unwrap_or(0),
            size: reader.size("size")?,
            mark: reader.size("mark")?,
            cache: reader.word("cache", &CACHES)?,
            name: name()?,
        },
        _ => Op::Check,
    };
    match &op {
        Op::Map { name: Some(name), .. }
        | Op::Alloc { name: Some(name), .. }
        | Op::Mmap { name: Some(name), .. } => {
            made.insert(name.clone());
        }
        Op::MapList { name: Some(name), memories, .. } => {
            made.insert(name.clone());
            made.extend((0..memories.len()).map(|index| format!("{name}.{index}")));
        }
        _ => {}
    }
    Ok(op)
}

impl Around<'_, '_> {
    pub(super) fn device(&self, key: &'static str) -> Result<usize, Wrong> {
        let name = self.reader.need(key, self.reader.text(key)?)?;
        self.names.device(name, self.reader.place_of(key))
    }

    /// A device, if one is named.
    fn given_device(&self) -> Result<Option<usize>, Wrong> {
        self.reader.node("device").map(|_| self.device("device")).transpose()
    }

    /// A device that is not bound at first.
    fn unbound(&self, key: &'static str) -> Result<usize, Wrong> {
        let device = self.device(key)?;
        match self.names.devices.get(device) {
            Some(spec) if spec.bound => Err(self
                .reader
                .place_of(key)
                .wrong(format!("'{}' is bound already: say 'bound = false'", spec.name))),
            _ => Ok(device),
        }
    }

    fn pool(&self) -> Result<usize, Wrong> {
        let name = self.reader.need("pool", self.reader.text("pool")?)?;
        self.names.pool(name, self.reader.place_of("pool"))
    }

    pub(super) fn memory(&self) -> Result<usize, Wrong> {
        let name = self.reader.need("memory", self.reader.text("memory")?)?;
        self.names.memory(name, self.reader.place_of("memory"))
    }

    /// A map or an allocation that an earlier step makes.
    fn made(&self, key: &'static str, made: &HashSet<String>) -> Result<String, Wrong> {
        let name = self.reader.need(key, self.reader.text(key)?)?;
        if made.contains(name) {
            return Ok(name.to_owned());
        }
        let mut all: Vec<&str> = made.iter().map(String::as_str).collect();
        all.sort_unstable();
        Err(self.reader.place_of(key).wrong(unknown(key, name, all.into_iter())))
    }

    pub(super) fn direction(&self) -> Result<Direction, Wrong> {
        Ok(self.reader.word("direction", &DIRECTIONS)?.unwrap_or(Direction::Both))
    }

    pub(super) fn context(&self) -> Result<Context, Wrong> {
        Ok(self.reader.word("context", &CONTEXTS)?.unwrap_or_default())
    }

    pub(super) fn kind(&self) -> Result<AllocKind, Wrong> {
        Ok(self.reader.word("kind", &KINDS)?.unwrap_or_default())
    }

    pub(super) fn attrs(&self) -> Result<Attrs, Wrong> {
        let mut attrs = Attrs::NONE;
        for (name, place) in self.reader.texts("attrs")? {
            let attr = lookup("attribute", name, Attrs::NAMED).map_err(|text| place.wrong(text))?;
            attrs = attrs.with(attr);
        }
        Ok(attrs)
    }

    /// A part of a memory; all of it where nothing else is said.
    fn part(&self) -> Result<(usize, u64, u64), Wrong> {
        let memory = self.memory()?;
        let len = self.names.memories.get(memory).map_or(0, |memory| memory.size);
        let offset = self.reader.size("offset")?.unwrap_or(0);
        let size = match self.reader.size("size")? {
            Some(size) => size,
            None => len.saturating_sub(offset),
        };
        if offset.checked_add(size).is_none_or(|end| end > len) {
            let place = self.reader.place_of("size");
            return Err(place.wrong(format!(
                "{size:#x} bytes from {offset:#x} on are beyond the memory, which has {len:#x}"
            )));
        }
        Ok((memory, offset, size))
    }

    /// A part of the RAM that comes and goes.
    fn late(&self) -> Result<PhysRange, Wrong> {
        let (reader, late) = (self.reader, &self.machine.late);
        let at = reader.need("at", reader.size("at")?)?;
        let size = reader.need("size", reader.size("size")?)?;
        match PhysRange::new(PhysAddr::new(at), size) {
            Some(run) if late.iter().any(|ram| ram.contains(run)) => Ok(run),
            _ => Err(reader
                .place_of("at")
                .wrong("what comes and goes is a part of RAM that says 'late = true'")),
        }
    }

    fn map(&self, name: Option<String>) -> Result<Op, Wrong> {
        let (memory, offset, size) = self.part()?;
        Ok(Op::Map {
            device: self.device("device")?,
            memory,
            offset,
            size,
            direction: self.direction()?,
            attrs: self.attrs()?,
            name,
        })
    }

    fn target(&self, made: &HashSet<String>) -> Result<Target, Wrong> {
        let given = ["map", "alloc", "mapping", "memory", "pool", "address"];
        let given: Vec<_> =
            given.into_iter().filter(|key| self.reader.node(key).is_some()).collect();
        match given.as_slice() {
            ["map"] => self.made("map", made).map(Target::Map),
            ["alloc"] => self.made("alloc", made).map(Target::Alloc),
            ["mapping"] => self.made("mapping", made).map(Target::Mapping),
            ["memory"] => self.memory().map(Target::Memory),
            ["pool"] => self.pool().map(Target::Pool),
            ["address"] => {
                Ok(Target::Address(self.reader.need("address", self.reader.size("address")?)?))
            }
            _ => Err(self.reader.place().wrong(
                "the step needs one of 'map', 'alloc', 'mapping', 'memory', 'pool' and 'address'",
            )),
        }
    }

    fn access(
        &self,
        write: bool,
        made: &HashSet<String>,
    ) -> Result<(Target, u64, Option<u64>, Option<Bytes>), Wrong> {
        let target = self.target(made)?;
        let offset = self.reader.size("offset")?.unwrap_or(0);
        let mut size = self.reader.size("size")?;
        let bytes = if write {
            let node = self.reader.need("bytes", self.reader.node("bytes"))?;
            let bytes = Bytes::read(node, "bytes")?;
            for name in bytes.names() {
                self.names.memory(name, &node.place)?;
            }
            size = size.or(bytes.own_len());
            Some(bytes)
        } else {
            None
        };
        if size.is_none() && matches!(target, Target::Address(_)) {
            return Err(self.reader.place().wrong("an access by 'address' needs 'size'"));
        }
        if size.is_some_and(|size| size == 0 || size > MOST_BYTES) {
            return Err(self.reader.place_of("size").wrong("an access has 1 byte to 16 MiB"));
        }
        Ok((target, offset, size, bytes))
    }

    fn device_access(&self, write: bool, made: &HashSet<String>) -> Result<Op, Wrong> {
        let (target, offset, size, write) = self.access(write, made)?;
        let device = self.given_device()?;
        match (&target, device) {
            (Target::Map(_) | Target::Alloc(_), _) | (Target::Address(_), Some(_)) => {
                Ok(Op::DeviceAccess { device, target, offset, size, write })
            }
            (Target::Address(_), None) => {
                Err(self.reader.place().wrong("an access by 'address' needs 'device'"))
            }
            _ => Err(self.reader.place().wrong(
                "a device touches a 'map', an 'alloc' or an 'address': it knows no memory by name",
            )),
        }
    }

    fn fail_conversion(&self) -> Result<Op, Wrong> {
        let reader = self.reader;
        let [skip, done, doubt] = ["skip", "done", "doubt"].map(|key| reader.size(key));
        let (done, doubt) = (done?.unwrap_or(0), doubt?.unwrap_or(0));
        let code = reader.size("code")?.unwrap_or(1);
        let error = Err(ConvertError { done, doubt, code, verdict: ConvertVerdict::Retry });
        let says = reader.word("says", &SAYS)?.unwrap_or(false);
        let words = [
            ("done", Really::Done),
            ("done-and-doubt", Really::DoneAndDoubt),
            ("nothing", Really::Nothing),
            ("all", Really::All),
        ];
        let really = match reader.node("really") {
            None => Really::Done,
            Some(node) if matches!(node.value, Value::Number(_)) => {
                Really::First(size_of(node, "really")?)
            }
            Some(node) => lookup("truth", text_of(node, "really")?, &words)
                .map_err(|text| node.place.wrong(text))?,
        };
        let says = if says { Ok(()) } else { error };
        Ok(Op::FailConversion { skip: skip?.unwrap_or(0), says, really })
    }

    fn protection(&self, made: &HashSet<String>) -> Result<Op, Wrong> {
        let words: Vec<(&str, State)> = [
            ("private", State::PRIVATE),
            ("shared", State::SHARED),
            ("encrypted", State::ENCRYPTED),
            ("plain", State::PLAIN),
            ("ordinary", State::Ordinary),
        ]
        .into();
        let of = match self.reader.word("state", &words)? {
            Some(state) => Protected::State(state),
            None => match self.target(made)? {
                target @ (Target::Memory(_) | Target::Alloc(_) | Target::Pool(_)) => {
                    Protected::Target(target)
                }
                _ => {
                    let text = "a protection is of a 'memory', an 'alloc', a 'pool' or a 'state'";
                    return Err(self.reader.place().wrong(text));
                }
            },
        };
        Ok(Op::Protection { of, device: self.device("device")?, attrs: self.attrs()? })
    }
}
