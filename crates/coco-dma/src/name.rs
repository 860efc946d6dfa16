//! The name of a device inside an error: copied, so that the error outlives the device and `?`
//! carries it anywhere. Made where something is refused, never on the way of a map that succeeds.

use core::fmt;

/// A name of at most 31 bytes, inline. A longer one is cut between two characters and ends with
/// `...`.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Name {
    len: u8,
    bytes: [u8; Self::MOST],
}

impl Name {
    /// The most bytes of a name. With its length it fills 32 bytes; names that machines give
    /// devices (`0000:00:1f.2`, `vhost-user-blk`) are far below.
    pub const MOST: usize = 31;

    /// What stands at the end of a name that was cut.
    const CUT: &'static str = "...";

    /// A copy of `name`, cut where it is too long. Any context.
    pub const fn new(name: &str) -> Self {
        let empty = Self { len: 0, bytes: [0; Self::MOST] };
        if name.len() <= Self::MOST {
            return empty.followed_by(name);
        }
        let mut room = Self::MOST - Self::CUT.len();
        loop {
            // Byte 0 is the boundary at which this ends at the latest.
            match name.split_at_checked(room) {
                Some((kept, _)) => return empty.followed_by(kept).followed_by(Self::CUT),
                None => room -= 1,
            }
        }
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        let text = self.bytes.get(..usize::from(self.len));
        // Only whole characters were copied.
        text.and_then(|text| core::str::from_utf8(text).ok()).unwrap_or_default()
    }

    /// This and `more`, as far as there is room.
    const fn followed_by(mut self, more: &str) -> Self {
        let mut more = more.as_bytes();
        if let Some((_, mut free)) = self.bytes.split_at_mut_checked(self.len as usize) {
            while let (Some((to, places)), Some((from, rest))) =
                (free.split_first_mut(), more.split_first())
            {
                *to = *from;
                self.len += 1;
                (free, more) = (places, rest);
            }
        }
        self
    }
}

impl From<&str> for Name {
    fn from(name: &str) -> Self {
        Self::new(name)
    }
}

impl PartialEq<str> for Name {
    fn eq(&self, other: &str) -> bool {
        self.as_str() == other
    }
}

impl PartialEq<&str> for Name {
    fn eq(&self, other: &&str) -> bool {
        self.as_str() == *other
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::format;
    use std::string::String;

    use super::*;

    #[test]
    fn a_name_that_fits_is_kept_whole() {
        const NIC: Name = Name::new("nic");
        assert_eq!(NIC, "nic");
        for len in 0..=Name::MOST {
            let name: String = "0123456789".chars().cycle().take(len).collect();
            assert_eq!(Name::from(name.as_str()).as_str(), name);
        }
        assert_eq!(format!("{NIC}|{NIC:>5}|{NIC:?}"), "nic|  nic|\"nic\"");
        assert_eq!(size_of::<Name>(), 32);
    }

    #[test]
    fn a_longer_name_is_cut_between_characters_and_says_so() {
        // Characters of one to four bytes, shifted so that the cut falls on each of their bytes.
        for (character, shift) in
            ["x", "ü", "€", "😀"].iter().flat_map(|c| [(c, 0), (c, 1), (c, 2), (c, 3)])
        {
            let long: String = format!("{}{}", &"abc"[..shift], character.repeat(40));
            let name = Name::new(&long);
            let kept = name.as_str().strip_suffix("...").expect("the mark of a cut");
            assert!(long.starts_with(kept), "{long} became {name}");
            let room = Name::MOST - 3 - kept.len();
            assert!(room < character.len(), "{name}: {room} bytes of room are left");
        }
    }

    #[test]
    fn two_names_are_equal_where_their_texts_are() {
        assert_eq!(Name::new("disk"), Name::new("disk"));
        assert_ne!(Name::new("disk"), Name::new("disk0"));
        assert_ne!(Name::new(""), Name::new("\0"), "what is unused is no part of it");
    }
}
