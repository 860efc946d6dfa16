//! The control: that what is measured as bounced goes through the pool, and what is measured as
//! direct does not.

use std::time::Duration;

use coco_dma::addr::SLOT;
use coco_dma::device::CountersNow;
use coco_dma_virtio::Adaptor;
use virtio_drivers::Hal;

use super::window::{DISK, Stock};
use super::{CostError, Way};
use crate::disk::{
    Buffer, Disk, DiskError, IDENTITY, Request, SECTOR, Status, Submitted, slots, wait,
};
use crate::machine::Layer;

/// What buffers are filled with: neither zero nor a character of a name.
const SOIL: u8 = 0xA5;
/// Maps of a request: header, data, status.
pub(super) const MAPS: usize = 3;

/// Checks that the maps between two looks at the counters were `requests` requests of this way.
pub(super) fn check(
    way: Way,
    requests: u64,
    before: &CountersNow,
    after: &CountersNow,
) -> Result<(), CostError> {
    let wanted = usize::try_from(requests).unwrap_or(usize::MAX).saturating_mul(MAPS);
    let bounced = after.bounced.wrapping_sub(before.bounced);
    let direct = after.direct.wrapping_sub(before.direct);
    let finished = after.finished.wrapping_sub(before.finished);
    let right = match way {
        Way::Bounced => (bounced, direct) == (wanted, 0),
        Way::Direct => (bounced, direct) == (0, wanted),
    };
    if right && finished == wanted && after.refused == before.refused {
        return Ok(());
    }
    let what = format!(
        "made {bounced} bounced and {direct} direct maps for {requests} requests of {MAPS}"
    );
    Err(CostError::Control { way, what })
}

/// What a control needs to know.
pub(super) struct Control<'c, 'a> {
    pub(super) layer: &'c Layer<'a>,
    pub(super) adaptor: &'c Adaptor<'c>,
    pub(super) patience: Duration,
}

impl<'a> Control<'_, 'a> {
    /// Makes a request of each kind with a buffer of `stock`, and looks at the pool while it is in
    /// flight and at the bytes afterwards: a write has changed none of them, a read has brought
    /// zeroes, and the device's name what the device wrote. Answers with that name.
    pub(super) fn run<H: Hal>(
        &self,
        disk: &mut Disk<'a, '_, H>,
        stock: &mut Stock<'a>,
        way: Way,
        size: usize,
    ) -> Result<String, CostError> {
        let wrong = |what: &str| CostError::Control { way, what: what.to_owned() };
        let soil = |buffer: &mut Buffer<'a>| buffer.put(0, &vec![SOIL; size]);
        let mut buffer = stock.pop().ok_or(CostError::NoRoom)?;
        soil(&mut buffer).map_err(|error| wrong(&error.to_string()))?;
        let buffer = self.carry_out(disk, Request::write(0, buffer, size), way)?;
        if !is_all(&buffer, size, SOIL) {
            return Err(wrong("changed the bytes of a buffer that it wrote to the disk"));
        }
        let mut buffer = self.carry_out(disk, Request::read(0, buffer, size), way)?;
        if !is_all(&buffer, size, 0) {
            return Err(wrong("did not bring the zeroes that the disk holds"));
        }
        soil(&mut buffer).map_err(|error| wrong(&error.to_string()))?;
        let buffer = self.carry_out(disk, Request::identify(buffer), way)?;
        let name: [u8; IDENTITY] = buffer.get(0).map_err(|error| wrong(&error.to_string()))?;
        stock.push(buffer);
        let name: Vec<u8> = name.into_iter().take_while(|byte| *byte != 0).collect();
        if name.is_empty() || !name.iter().all(|byte| matches!(byte, b' '..=b'~')) {
            return Err(wrong("did not bring the name of the device"));
        }
        Ok(String::from_utf8_lossy(&name).into_owned())
    }

    /// One request, alone.
    fn carry_out<H: Hal>(
        &self,
        disk: &mut Disk<'a, '_, H>,
        request: Request<'a>,
        way: Way,
    ) -> Result<Buffer<'a>, CostError> {
        let (before, idle) = (self.adaptor.device().counters(), self.layer.pool().used());
        let len = request.len as u64;
        let wanted = match way {
            Way::Bounced => usize::try_from(slots(len)).unwrap_or(usize::MAX),
            Way::Direct => 0,
        };
        let Submitted::Taken = disk.submit(request)? else { return Err(CostError::NoRoom) };
        let used = self.layer.pool().used().saturating_sub(idle);
        let done = loop {
            if let Some(done) = disk.next_done()? {
                break done;
            }
            wait(&mut [&mut *disk], self.patience)?;
        };
        if done.status != Status::Ok {
            let (op, status) = (done.request.op, done.status);
            return Err(DiskError::Io { disk: DISK, op, status }.into());
        }
        if used != wanted {
            let what = format!("held {used} slots of {SLOT} bytes for a request, not {wanted}");
            return Err(CostError::Control { way, what });
        }
        check(way, 1, &before, &self.adaptor.device().counters())?;
        done.request.data.ok_or(CostError::NoRoom)
    }
}

/// Whether the first `len` bytes all are `byte`.
fn is_all(buffer: &Buffer<'_>, len: usize, byte: u8) -> bool {
    (0..len / SECTOR).all(|sector| buffer.get(sector * SECTOR) == Ok([byte; SECTOR]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn maps_of_the_other_way_are_seen() {
        let before = CountersNow { bounced: 5, direct: 7, finished: 12, ..CountersNow::default() };
        let after = |bounced, direct, finished, refused| CountersNow {
            bounced: before.bounced + bounced,
            direct: before.direct + direct,
            finished: before.finished + finished,
            refused,
            ..before
        };
        let held = |way, after| check(way, 2, &before, &after).is_ok();
        assert!(held(Way::Bounced, after(6, 0, 6, 0)));
        assert!(held(Way::Direct, after(0, 6, 6, 0)));
        for (way, after) in [
            (Way::Bounced, after(0, 6, 6, 0)),
            (Way::Bounced, after(6, 1, 7, 0)),
            (Way::Bounced, after(5, 0, 5, 0)),
            (Way::Bounced, after(6, 0, 5, 0)),
            (Way::Direct, after(6, 0, 6, 0)),
            (Way::Direct, after(2, 4, 6, 0)),
            (Way::Direct, after(0, 6, 6, 1)),
        ] {
            assert!(!held(way, after), "{way:?} {after:?}");
        }
    }
}
