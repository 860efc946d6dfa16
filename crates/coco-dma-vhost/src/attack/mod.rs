//! The proof by attack: what the device does with addresses that it was not given.
//!
//! Each attack is a descriptor written by hand into the ring of a fresh connection, beside a good
//! header and a good status. It is refused when the device completes nothing with success. What
//! proves more than the device's word is memory: the private arena is filled with a mark before,
//! and compared after, and so is the pool outside of the request. A request that is good but for
//! its address is needed to prove anything: one is made first and one last.
//!
//! A dead device refuses nothing. A connection that it closed, or a silence, counts only when the
//! same process answered afterwards; a process that is lost is replaced, and the attack repeated
//! from the first shot that was not answered.

mod ring;
mod shots;
mod witness;

use std::io;
use std::time::Duration;

use coco_dma::coherent::AllocError;
use coco_dma::device::{BindError, Endpoint};
use coco_dma::plan::Limits;
use virtio_bindings::bindings::virtio_config::VIRTIO_F_VERSION_1;

use crate::device::{DeviceError, DeviceProcess, Keeper};
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

/// Which disk is attacked.
#[derive(Clone, Copy, Debug)]
pub struct Target<'t> {
    /// One of the process's exports that nobody is connected to: writable, of at least 4 KiB, with contents
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
    /// There is no device process, or it takes no connection.
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
    Alloc(#[from] AllocError),
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

impl AttackError {
    /// Whether the device is lost ([`DiskError::is_loss`]).
    #[must_use]
    pub fn is_loss(&self) -> bool {
        match self {
            Self::Device(error) => error.is_loss(),
            Self::Front(error) => error.is_loss(),
            Self::Disk(error) => error.is_loss(),
            _ => false,
        }
    }
}

/// Attacks the device of `keeper` from every side, one fresh connection each. Blocks, for seconds
/// where a device answers by silence. No other job may run on the machine meanwhile.
///
/// # Errors
///
/// Any [`AttackError`]; after three processes in a row that were lost before they answered one
/// shot, [`DeviceError::Fruitless`]. An attack that succeeds is no error: it stands in the list.
pub fn attack(
    layer: &Layer<'_>,
    keeper: &mut Keeper<'_>,
    target: &Target<'_>,
) -> Result<Vec<Attack>, AttackError> {
    let witness = Witness::new(layer.machine(), target.backing)?;
    let mut attacks = Vec::new();
    let good = || shots::GOOD.into_iter().map(|shot| (shot, true));
    let bad = shots::BAD.into_iter().map(|shot| (shot, false));
    let mut shots = good().chain(bad).chain(good()).peekable();
    while let Some(&(shot, is_good)) = shots.peek() {
        let process = keeper.process()?;
        match fire(layer, process, target, &witness, &shot) {
            Ok((attack, answer)) => {
                keeper.did_something();
                shots.next();
                if is_good {
                    control(attack, answer)?;
                } else {
                    attacks.push(attack);
                }
            }
            Err(error) if error.is_loss() => keeper.replace(&error)?,
            Err(error) => return Err(error),
        }
    }
    Ok(attacks)
}

/// A good request has to work.
fn control(attack: Attack, answer: Answer) -> Result<(), AttackError> {
    if attack.refused || answer != Answer::Done(0) {
        return Err(AttackError::Control(attack.how));
    }
    if !attack.intact {
        let what = "changed memory outside of the request";
        return Err(AttackError::Control(what.to_owned()));
    }
    Ok(())
}

/// One connection, one request, on a device of the layer that is made for it and revoked after it.
fn fire(
    layer: &Layer<'_>,
    process: &DeviceProcess,
    target: &Target<'_>,
    witness: &Witness<'_>,
    shot: &Shot,
) -> Result<(Attack, Answer), AttackError> {
    let stream = process.connect(target.export)?;
    let mut front = Front::connect(stream, layer.machine())?;
    front.accept(bit(VIRTIO_F_VERSION_1))?;
    let device = layer.dma().bind(Endpoint::new(NAME), Limits::NONE)?;
    let mut ring = Ring::new(&device)?;
    let mut fired = shoot(layer, process, &mut front, &mut ring, witness, shot);
    if let Ok((_, Answer::Nothing)) = fired {
        // Silence is a refusal of somebody who hears.
        fired = front.stop_queues().map_err(AttackError::from).and(fired);
    }
    if fired.as_ref().is_err_and(AttackError::is_loss) {
        process.kill()?;
    }
    // Also after an error: the device has to be done with the ring before anybody else gets it.
    let ended = || process.poll_exit().is_some();
    let let_go = ended() || {
        let _ = front.stop_queues();
        front.hang_up(FAREWELL) || ended()
    };
    if !let_go {
        // Only its death takes the ring out of its hands. An answer that it gave stands.
        process.kill()?;
    }
    ring.end(&device);
    drop(front);
    let fired = fired?;
    if fired.1 == Answer::HungUp {
        // The connection of a process that was killed is closed before the process has ended: only
        // one that answers has closed it on purpose.
        drop(process.connect(target.export)?);
    }
    Ok(fired)
}

fn shoot(
    layer: &Layer<'_>,
    process: &DeviceProcess,
    front: &mut Front<'_>,
    ring: &mut Ring,
    witness: &Witness<'_>,
    shot: &Shot,
) -> Result<(Attack, Answer), AttackError> {
    front.start_queue(0, &ring.place())?;
    let address = shot.aim.address(layer.machine(), ring.data());
    let request = ring.bytes(layer.machine());
    let before = witness.look(&request)?;
    let said = process.last_words().len();
    // From here on: a device may look into the ring before it is kicked.
    ring.load(address, shot.len, shot.device_writes);
    front.kick(0);
    let answer = ring.await_answer(front, process, SILENCE)?;
    let after = witness.look(&request)?;
    let (refused, what) = match answer {
        Answer::HungUp => (true, "closed the connection".to_owned()),
        Answer::Nothing => (true, format!("said nothing for {SILENCE:?}")),
        Answer::Broken => (true, "declared its queue broken".to_owned()),
        Answer::Done(0) => (false, "was carried out".to_owned()),
        Answer::Done(ring::NO_STATUS) => (false, "was completed without a status".to_owned()),
        Answer::Done(status) => (true, format!("answered with status {status}")),
    };
    let how = match (answer == Answer::HungUp).then(|| new_words(process, said)).flatten() {
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
    front: &Front<'_>,
    process: &DeviceProcess,
    patience: Duration,
) -> Result<[bool; 4], DiskError> {
    let [call, error, end] = front.signs();
    let exit = (process.exit_fd(), crate::front::Until::Readable);
    let seen = wait(&[call, error, end, exit], patience).map_err(DiskError::Wait)?;
    Ok(seen.try_into().unwrap_or([false; 4]))
}
