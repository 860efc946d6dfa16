//! The proof by attack: what the device does with addresses that it was not given.
//!
//! Each attack is a descriptor written by hand into the ring of a fresh connection, beside a good
//! header and a good status. It is refused when the device completes nothing with success. What
//! proves more than the device's word is memory: the private arena is filled with a mark before,
//! and compared after, and so is the pool outside of the request. A request that is good but for
//! its address is needed to prove anything: one is made first and one last.

mod ring;
mod shots;
mod witness;

use std::io;
use std::time::Duration;

use coco_dma::coherent::AllocError;
use coco_dma::device::{BindError, Device, Endpoint};
use coco_dma::plan::Limits;
use virtio_bindings::bindings::virtio_config::VIRTIO_F_VERSION_1;

use crate::device::{DeviceError, DeviceProcess};
use crate::disk::DiskError;
use crate::front::{Front, FrontError, bit, wait};
use crate::machine::Layer;
use crate::memory::MemoryError;
use ring::{Answer, Ring};
use shots::Shot;
use witness::Witness;

/// How long a device may say nothing before that counts as a refusal.
const SILENCE: Duration = Duration::from_secs(2);
/// How long it may take to close its end.
const FAREWELL: Duration = Duration::from_secs(2);
/// The name in messages.
const NAME: &str = "scratch disk";

/// Which device is attacked.
#[derive(Clone, Copy, Debug)]
pub struct Target<'t> {
    /// The process.
    pub process: &'t DeviceProcess,
    /// One of its exports that nobody is connected to: writable, of at least 4 KiB, with contents
    /// that may be lost. An attack that succeeds overwrites them, and so do the good requests.
    pub export: usize,
    /// The file behind that export, where there is one: it is searched for private bytes.
    pub backing: Option<&'t std::fs::File>,
}

/// One attack and what became of it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Attack {
    /// What the descriptor pointed at: a stable name in lower case with dashes.
    pub name: &'static str,
    /// The device did not carry it out.
    pub refused: bool,
    /// Private memory, and the pool outside of the request, held the same bytes after as before,
    /// and no private byte came to the disk.
    pub intact: bool,
    /// What the device did, and what it said.
    pub how: String,
}

/// Attacks that prove nothing, because something else went wrong.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AttackError {
    /// The device process is no more, or takes no connection.
    #[error(transparent)]
    Device(#[from] DeviceError),
    /// The connection could not be set up.
    #[error("{NAME}: {0}")]
    Front(#[from] FrontError),
    /// The device died on its own.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// A good request failed: that bad ones fail too says nothing.
    #[error("{NAME}: a good request {0}: the device refuses everything, so refusals prove nothing")]
    Control(String),
    /// The layer binds no such device.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// The pool has no room for a ring, why is in the text.
    #[error("{NAME}: no memory for a ring: {0}")]
    Alloc(String),
    /// The private arena is in use: let the copy end first.
    #[error(transparent)]
    Memory(#[from] MemoryError),
    /// Shared memory or the disk's file could not be read.
    #[error("cannot look at {what}: {source}; check what this process may open")]
    Look {
        /// What was to be read.
        what: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
}

impl From<AllocError<'_>> for AttackError {
    fn from(error: AllocError<'_>) -> Self {
        Self::Alloc(error.to_string())
    }
}

/// Attacks the device from every side, one fresh connection each. Blocks, for seconds where a
/// device answers by silence. No other job may run on the machine meanwhile.
///
/// # Errors
///
/// Any [`AttackError`]. An attack that succeeds is no error: it stands in the list.
pub fn attack(layer: &Layer<'_>, target: &Target<'_>) -> Result<Vec<Attack>, AttackError> {
    let device = layer.dma().bind(Endpoint::new(NAME), Limits::NONE)?;
    let witness = Witness::new(layer.machine(), target.backing)?;
    control(layer, target, &device, &witness)?;
    let mut attacks = Vec::new();
    for shot in shots::BAD {
        attacks.push(fire(layer, target, &device, &witness, &shot)?.0);
    }
    control(layer, target, &device, &witness)?;
    Ok(attacks)
}

/// Good requests, one each way: they have to work.
fn control(
    layer: &Layer<'_>,
    target: &Target<'_>,
    device: &Device<'_>,
    witness: &Witness<'_>,
) -> Result<(), AttackError> {
    for shot in shots::GOOD {
        let (attack, answer) = fire(layer, target, device, witness, &shot)?;
        if attack.refused || answer != Answer::Done(0) {
            return Err(AttackError::Control(attack.how));
        }
        if !attack.intact {
            let what = "changed memory outside of the request";
            return Err(AttackError::Control(what.to_owned()));
        }
    }
    Ok(())
}

/// One connection, one request.
fn fire(
    layer: &Layer<'_>,
    target: &Target<'_>,
    device: &Device<'_>,
    witness: &Witness<'_>,
    shot: &Shot,
) -> Result<(Attack, Answer), AttackError> {
    let stream = target.process.connect(target.export)?;
    let mut front = Front::connect(stream, layer.machine().shared())?;
    front.accept(bit(VIRTIO_F_VERSION_1))?;
    let mut ring = Ring::new(device)?;
    let fired = shoot(layer, target, &mut front, &mut ring, witness, shot);
    // Also after an error: the device has to be done with the ring before anybody else gets it.
    let _ = front.stop_queue();
    let stopped = front.hang_up(FAREWELL) || target.process.poll_exit().is_some();
    ring.end(device, stopped);
    fired
}

fn shoot(
    layer: &Layer<'_>,
    target: &Target<'_>,
    front: &mut Front,
    ring: &mut Ring,
    witness: &Witness<'_>,
    shot: &Shot,
) -> Result<(Attack, Answer), AttackError> {
    front.start_queue(&ring.place())?;
    let address = shot.aim.address(layer.machine(), ring.data());
    let request = ring.bytes(layer.machine());
    let before = witness.look(&request)?;
    let said = target.process.last_words().len();
    // From here on: a device may look into the ring before it is kicked.
    ring.load(address, shot.len, shot.device_writes);
    front.kick();
    let answer = ring.await_answer(front, target.process, SILENCE)?;
    let after = witness.look(&request)?;
    let (refused, what) = match answer {
        Answer::HungUp => (true, "closed the connection".to_owned()),
        Answer::Nothing => (true, format!("said nothing for {SILENCE:?}")),
        Answer::Broken => (true, "declared its queue broken".to_owned()),
        Answer::Done(0) => (false, "was carried out".to_owned()),
        Answer::Done(ring::NO_STATUS) => (false, "was completed without a status".to_owned()),
        Answer::Done(status) => (true, format!("answered with status {status}")),
    };
    let how = match (answer == Answer::HungUp).then(|| new_words(target.process, said)).flatten() {
        Some(line) => format!("{what}, saying: {line}"),
        None => what,
    };
    let attack = Attack { name: shot.name, refused, intact: after.is_intact_since(&before), how };
    Ok((attack, answer))
}

/// What the process said beyond its first `said` lines.
fn new_words(process: &DeviceProcess, said: usize) -> Option<String> {
    let mut words = process.last_words();
    (words.len() > said).then(|| words.pop()).flatten()
}

/// Waits on a connection alone.
fn wait_for_signs(
    front: &Front,
    process: &DeviceProcess,
    patience: Duration,
) -> Result<[bool; 4], DiskError> {
    let [call, error, end] = front.signs();
    let exit = (process.exit_fd(), crate::front::Until::Readable);
    let seen = wait(&[call, error, end, exit], patience).map_err(DiskError::Wait)?;
    Ok(seen.try_into().unwrap_or([false; 4]))
}
