//! Touching bytes: as a device, as the host, as the driver.

use std::ops::Range;

use coco_dma::addr::PhysRange;
use coco_dma_sim::{Outcome, SimDevice};

use super::Got;
use super::stream::{size, wide};
use super::world::{LiveList, World};
use crate::case::{Bytes, DeviceSpec, Op, Target};

/// Past the bus and its windows there is nothing: no machine has memory at the last address.
const NOWHERE: u64 = u64::MAX;
/// There is no map or allocation that the device could touch.
const NONE: &str = "none";

/// The word of an outcome.
fn word(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Clear => "clear",
        Outcome::Ciphertext => "ciphertext",
        Outcome::Corrupted => "corrupted",
        Outcome::Lost => "lost",
        Outcome::Fault => "fault",
    }
}

impl World<'_> {
    pub(super) fn touch(&mut self, op: &Op) -> Result<Got, String> {
        match op {
            Op::DeviceAccess { device, target, offset, size, write } => {
                self.as_device(*device, target, (*offset, *size), write.as_ref())
            }
            Op::HostAccess { target, offset, size, write } => {
                self.as_host(target, (*offset, *size), write.as_ref())
            }
            Op::DriverAccess { target, offset, size, write } => {
                self.as_driver(target, (*offset, *size), write.as_ref())
            }
            _ => Err("no access".to_owned()),
        }
    }

    fn as_device(
        &self,
        device: Option<usize>,
        target: &Target,
        (offset, len): (u64, Option<u64>),
        write: Option<&Bytes>,
    ) -> Result<Got, String> {
        if let Target::Map(name) = target
            && let Some((live, whole)) = self.list_part(name)
        {
            let offset = whole.start.saturating_add(size(offset)?).min(whole.end);
            let len = len.map_or(Ok(whole.end - offset), size)?;
            let device = device.unwrap_or(live.device);
            return self.through_list(device, live, offset..offset.saturating_add(len), write);
        }
        let (owner, addr, whole) = match target {
            Target::Map(name) => {
                let Some(live) = self.maps.get(name) else { return Ok(Got::new(NONE)) };
                let addr = self.taken(live.device, live.mapping.addr().raw());
                let addr = self.kept(live.device, addr, live.range);
                (live.device, addr, wide(live.mapping.len()))
            }
            Target::Alloc(name) => {
                let Some(live) = self.allocs.get(name) else { return Ok(Got::new(NONE)) };
                (live.device, live.memory.addr(), wide(live.memory.len()))
            }
            Target::Address(addr) => (0, *addr, 0),
            _ => return Err("a device knows no memory by name".to_owned()),
        };
        let device = device.unwrap_or(owner);
        let len = size(len.unwrap_or(whole.saturating_sub(offset)))?;
        let addr = addr.wrapping_add(offset);
        let (device, addr) = self.sim_device(device, addr, len)?;
        Ok(match write {
            Some(bytes) => Got::new(word(device.write(addr, &self.make(bytes, len)))),
            None => {
                let mut bytes = vec![0; len];
                let outcome = device.read(addr, &mut bytes);
                Got { bytes: Some(bytes), ..Got::new(word(outcome)) }
            }
        })
    }

    /// As a device that goes through the segments of a list, one behind the other. What is asked for past
    /// the last one is behind it in the device's addresses.
    fn through_list(
        &self,
        index: usize,
        live: &LiveList<'_>,
        part: Range<usize>,
        write: Option<&Bytes>,
    ) -> Result<Got, String> {
        let segments: Vec<_> = live.list.segments().collect();
        let mut bytes = write.map_or(vec![0; part.len()], |bytes| self.make(bytes, part.len()));
        let (mut before, mut outcome, mut done) = (0, Outcome::Clear, 0);
        let most = self.spec(index).and_then(|spec| spec.limits.segment);
        let most = most.map_or(Ok(usize::MAX), size)?;
        for (number, segment) in segments.iter().enumerate() {
            let len = if number + 1 == segments.len() { usize::MAX } else { size(segment.len)? };
            let start = part.start.saturating_sub(before).min(len);
            let end = part.end.saturating_sub(before).min(len);
            before = before.saturating_add(len);
            let Some(bytes) = bytes.get_mut(done..done + (end - start)).filter(|b| !b.is_empty())
            else {
                continue;
            };
            done += end - start;
            // It moves no more than its longest segment, whatever it is told.
            let moved = most.saturating_sub(start).min(bytes.len());
            let Some(bytes) = bytes.get_mut(..moved) else { continue };
            let addr = self.taken(index, segment.addr.raw()).wrapping_add(wide(start));
            let (device, addr) = self.sim_device(index, addr, bytes.len())?;
            let now = match write {
                Some(_) => device.write(addr, bytes),
                None => device.read(addr, bytes),
            };
            if outcome == Outcome::Clear {
                outcome = now;
            }
        }
        Ok(match write {
            Some(_) => Got::new(word(outcome)),
            None => Got { bytes: Some(bytes), ..Got::new(word(outcome)) },
        })
    }

    /// The address of a map or segment as its device takes it: the bits below its alignment are none.
    fn taken(&self, index: usize, addr: u64) -> u64 {
        self.spec(index).map_or(addr, |spec| addr & !(spec.limits.align.bytes() - 1))
    }

    /// The address of a map as its device puts it together: the low bits that it wants kept are
    /// taken from the buffer, as those of an NVMe device's first page are.
    fn kept(&self, index: usize, addr: u64, buffer: Option<PhysRange>) -> u64 {
        let keep = self.spec(index).map_or(0, |spec| spec.limits.min_align.raw());
        buffer.map_or(addr, |buffer| addr & !keep | buffer.base().raw() & keep)
    }

    /// What the case says of a device as it is now.
    fn spec(&self, index: usize) -> Option<&DeviceSpec> {
        self.case.devices.get(self.described.get(index).copied().unwrap_or(index))
    }

    /// The device as the machine has it, and the address that comes out of its bus.
    fn sim_device(&self, index: usize, addr: u64, len: usize) -> Result<(SimDevice, u64), String> {
        let spec = self.spec(index).ok_or("no such device")?;
        let pools = spec.pools.iter().filter_map(|pool| self.case.pools.get(*pool));
        let restricted = pools.filter(|pool| pool.restricted).map(|pool| pool.range).collect();
        let mut device =
            SimDevice::new(self.ground.machine, &spec.name, spec.trust).confined_to(restricted);
        if !spec.coherent {
            device = device.not_coherent();
        }
        if let Some(boundary) = spec.limits.boundary {
            device = device.counts_within(boundary.bytes());
        }
        let last = addr.checked_add(wide(len).saturating_sub(1));
        if spec.bus_limit.is_some_and(|limit| last.is_none_or(|last| last > limit)) {
            return Ok((device, NOWHERE));
        }
        if spec.attachment.is_translated() {
            let source = u32::try_from(index).unwrap_or(u32::MAX);
            return Ok((device.address_bits(spec.mask).behind(self.ground.iommu, source), addr));
        }
        // The windows of the bus stand between the device and the machine.
        Ok((device.address_bits(spec.mask).through(spec.bus.clone()), addr))
    }

    fn as_host(
        &self,
        target: &Target,
        (offset, len): (u64, Option<u64>),
        write: Option<&Bytes>,
    ) -> Result<Got, String> {
        let machine = self.ground.machine;
        let (at, whole) = match target {
            Target::Address(addr) => (coco_dma::addr::PhysAddr::new(*addr), 0),
            target => {
                let run = self.run_of(target).ok_or("it lies in no single run of memory")?;
                (run.base(), run.len())
            }
        };
        let at = at.checked_add(offset).ok_or("past the address space")?;
        let len = size(len.unwrap_or(whole.saturating_sub(offset)))?;
        Ok(match write {
            Some(bytes) => Got::new(word(machine.host_write(at, &self.make(bytes, len)))),
            None => {
                let mut bytes = vec![0; len];
                let outcome = machine.host_read(at, &mut bytes);
                Got { bytes: Some(bytes), ..Got::new(word(outcome)) }
            }
        })
    }

    fn as_driver(
        &self,
        target: &Target,
        (offset, len): (u64, Option<u64>),
        write: Option<&Bytes>,
    ) -> Result<Got, String> {
        let offset = size(offset)?;
        let beyond = "these bytes are beyond the memory";
        let done = Got::new("done");
        match target {
            Target::Memory(index) => {
                let buffer = self.buffers.get(*index).ok_or("no such memory")?;
                let len = len.map_or(Ok(buffer.len.saturating_sub(offset)), size)?;
                match write {
                    Some(bytes) if buffer.write(offset, &self.make(bytes, len)) => Ok(done),
                    Some(_) => Err(beyond.to_owned()),
                    None => {
                        let bytes = buffer.read(offset, len).ok_or(beyond)?;
                        Ok(Got { bytes: Some(bytes), ..done })
                    }
                }
            }
            Target::Alloc(name) => {
                let live = self.allocs.get(name);
                let live = live.ok_or_else(|| format!("no allocation '{name}' lives"))?;
                let memory = &live.memory;
                let len = len.map_or(Ok(memory.len().saturating_sub(offset)), size)?;
                match write {
                    Some(bytes) => {
                        memory.write(offset, &self.make(bytes, len)).ok_or(beyond)?;
                        Ok(done)
                    }
                    None => {
                        let bytes = memory.read(offset, len).ok_or(beyond)?;
                        Ok(Got { bytes: Some(bytes), ..done })
                    }
                }
            }
            Target::Mapping(name) => {
                let mapping = self.mappings.get(name).ok_or("it was not mapped")?;
                let len = len.map_or(Ok(mapping.len().saturating_sub(offset)), size)?;
                let done = |outcome| match outcome {
                    Outcome::Clear => Got::new("done"),
                    other => Got::new(word(other)),
                };
                Ok(match write {
                    Some(bytes) => done(mapping.write(offset, &self.make(bytes, len))),
                    None => {
                        let mut bytes = vec![0; len];
                        let outcome = mapping.read(offset, &mut bytes);
                        Got { bytes: Some(bytes), ..done(outcome) }
                    }
                })
            }
            _ => Err("a driver touches a memory, an allocation or a mapping".to_owned()),
        }
    }
}
