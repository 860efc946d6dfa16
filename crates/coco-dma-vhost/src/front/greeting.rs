//! The first words on a connection: what the device offers, and what we cannot do without.

use std::os::unix::net::UnixStream;

use vhost::VhostBackend;
use vhost::vhost_user::VhostUserFrontend;
use vhost::vhost_user::message::{VhostUserConfigFlags, VhostUserProtocolFeatures as Protocol};
use virtio_bindings::bindings::virtio_config::VIRTIO_F_VERSION_1;

use super::link::Link;
use super::{FrontError, bit};

/// Bytes of `struct virtio_blk_config` that are read, up to `num_queues`.
pub(super) const CONFIG: usize = 36;
/// The bit with which a vhost-user device offers protocol features.
pub(super) const PROTOCOL_FEATURES: u32 = 30;

/// Without acknowledgements we would not know when a region is gone for good; without slots, not
/// how many there may be.
const NEEDED: [(Protocol, &str); 3] = [
    (Protocol::CONFIG, "the protocol feature CONFIG"),
    (Protocol::REPLY_ACK, "the protocol feature REPLY_ACK"),
    (Protocol::CONFIGURE_MEM_SLOTS, "the protocol feature CONFIGURE_MEM_SLOTS"),
];

/// A connection whose ends know each other.
pub(super) struct Greeting {
    pub(super) link: Link,
    pub(super) offered: u64,
    pub(super) region_limit: u64,
    pub(super) config: [u8; CONFIG],
}

impl Greeting {
    /// With a disk that is told of regions at any time.
    pub(super) fn exchange(stream: UnixStream) -> Result<Self, FrontError> {
        let (link, offered) = begin(stream)?;
        let protocol =
            link.ask("GET_PROTOCOL_FEATURES", |device| device.get_protocol_features())?;
        if let Some((_, name)) = NEEDED.iter().find(|(wanted, _)| !protocol.contains(*wanted)) {
            return Err(FrontError::Missing(name));
        }
        // Several queues are no use to us, but some devices count on being asked.
        let accepted = NEEDED.iter().fold(protocol & Protocol::MQ, |all, (one, _)| all | *one);
        link.ask("SET_PROTOCOL_FEATURES", |device| device.set_protocol_features(accepted))?;
        link.acknowledge_all();
        let region_limit = link.ask("GET_MAX_MEM_SLOTS", |device| device.get_max_mem_slots())?;
        // qemu-storage-daemon answers from offset 0 whatever is asked: read once, and whole.
        let (_, answer) = link.ask("GET_CONFIG", |device| {
            let flags = VhostUserConfigFlags::WRITABLE;
            device.get_config(0, u32::try_from(CONFIG).unwrap_or(0), flags, &[0; CONFIG])
        })?;
        let mut config = [0; CONFIG];
        config.iter_mut().zip(answer).for_each(|(to, from)| *to = from);
        Ok(Self { link, offered, region_limit, config })
    }

    /// With a device that is told of the pool alone. It may not say when it has done as told, but
    /// it does everything in order.
    pub(super) fn exchange_little(stream: UnixStream) -> Result<Self, FrontError> {
        let (link, offered) = begin(stream)?;
        let protocol =
            link.ask("GET_PROTOCOL_FEATURES", |device| device.get_protocol_features())?;
        let accepted = protocol & (Protocol::MQ | Protocol::REPLY_ACK);
        link.ask("SET_PROTOCOL_FEATURES", |device| device.set_protocol_features(accepted))?;
        link.acknowledge_all();
        Ok(Self { link, offered, region_limit: 1, config: [0; CONFIG] })
    }
}

/// Up to the features.
fn begin(stream: UnixStream) -> Result<(Link, u64), FrontError> {
    let link = Link::new(stream)?;
    link.ask("SET_OWNER", |device| device.set_owner())?;
    let offered = link.ask("GET_FEATURES", |device| device.get_features())?;
    for (feature, name) in [
        (VIRTIO_F_VERSION_1, "VIRTIO_F_VERSION_1"),
        (PROTOCOL_FEATURES, "vhost-user protocol features"),
    ] {
        if offered & bit(feature) == 0 {
            return Err(FrontError::Missing(name));
        }
    }
    Ok((link, offered))
}
