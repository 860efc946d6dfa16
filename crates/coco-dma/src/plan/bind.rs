//! What is decided once, when a device is bound: whether it may be, and how far an open machine's
//! maps need no further thought.

use super::pools;
use super::request::DeviceInfo;
use super::request::PoolInfo;
use crate::addr::Alignment;
use crate::regime::Regime;
use crate::state::PoolLabel;
use crate::state::Trust;

/// Why a device may not be bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotBound {
    /// No device can be accepted on this machine.
    NoAcceptedDevices,
    /// This alignment of the device conflicts with its min-align mask, or is longer than its segment
    /// or boundary.
    Alignment(Alignment),
    /// An accepted device is restricted to a pool that is shared with the host.
    AcceptedWithSharedPool,
    /// A restricted pool has a label that does not exist on this machine.
    RestrictedLabel(PoolLabel),
}

/// What is refused when a device is made, so that no map can trip over it later.
pub(crate) fn refuse(
    regime: &Regime,
    device: &DeviceInfo<'_>,
    pools: &[PoolInfo],
) -> Result<(), NotBound> {
    let accepted = device.trust == Trust::Accepted;
    if accepted && !regime.has_accepted_devices() {
        return Err(NotBound::NoAcceptedDevices);
    }
    if device.limits.conflict() {
        return Err(NotBound::Alignment(device.limits.align.max(device.limits.len_align)));
    }
    for pool in pools.iter().filter(|pool| pool.restricted) {
        if pools::state_of(regime, pool.label).is_none() {
            return Err(NotBound::RestrictedLabel(pool.label));
        }
        if accepted && pool.label == PoolLabel::GuestShared {
            return Err(NotBound::AcceptedWithSharedPool);
        }
    }
    Ok(())
}

/// The address below which an open machine gives this device every buffer at its own address; 0
/// where some request could come out differently.
pub(crate) fn open_path(regime: &Regime, device: &DeviceInfo<'_>, pools: &[PoolInfo]) -> u64 {
    let limits = &device.limits;
    let plain = *regime == Regime::Open
        && device.coherent
        && !device.force_bounce // sabotage: open-forced-forgotten
        && !device.attachment.is_translated()
        && limits.segment.is_none()
        && limits.boundary.is_none()
        && limits.align.is_none()
        && limits.len_align.is_none()
        && !pools.iter().any(|pool| pool.restricted)
        && device.bus.is_identity();
    if plain { device.limit().raw() } else { 0 } // sabotage: open-without-mask
}
