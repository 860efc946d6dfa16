//! Numbers as people write them: decimal or `0x` hex, sizes also with `KiB`, `MiB`, `GiB`, `TiB`.

use core::fmt;

use serde::Serialize;
use serde::Serializer;

/// A number: decimal or `0x` hex.
pub(crate) fn number(text: &str) -> Result<u64, String> {
    let parsed = match text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        Some(digits) if digits.bytes().all(|byte| byte.is_ascii_hexdigit()) => {
            u64::from_str_radix(digits, 16).ok()
        }
        None if text.bytes().all(|byte| byte.is_ascii_digit()) => text.parse().ok(),
        _ => None,
    };
    parsed.ok_or_else(|| {
        format!("'{text}' is no number of 64 bits; write it in decimal or as 0x and hex digits")
    })
}

/// A size in bytes: a number, or one with a unit.
pub(crate) fn size(text: &str) -> Result<u64, String> {
    const UNITS: [(&str, u32); 4] = [("KiB", 10), ("MiB", 20), ("GiB", 30), ("TiB", 40)];
    let wrong = || {
        format!("'{text}' is no size of 64 bits; write bytes, 0x and hex digits, or 4KiB, 64MiB")
    };
    for (unit, shift) in UNITS {
        if let Some(count) = text.strip_suffix(unit) {
            let count = number(count).map_err(|_| wrong())?;
            return count.checked_mul(1 << shift).ok_or_else(wrong);
        }
    }
    number(text).map_err(|_| wrong())
}

/// A count or a bit number.
pub(crate) fn small(text: &str) -> Result<u32, String> {
    let value = number(text)?;
    u32::try_from(value).map_err(|_| format!("'{text}' is too large"))
}

/// A size with the largest unit that divides it.
pub(crate) struct Size(pub(crate) u64);

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            0 => f.write_str("0 bytes"),
            n if n % (1 << 30) == 0 => write!(f, "{} GiB", n >> 30),
            n if n % (1 << 20) == 0 => write!(f, "{} MiB", n >> 20),
            n if n % (1 << 10) == 0 => write!(f, "{} KiB", n >> 10),
            n => write!(f, "{n} bytes"),
        }
    }
}

/// So many of a thing, with the plural where it is due.
pub(crate) struct Count(pub(crate) u64, pub(crate) &'static str);

impl fmt::Display for Count {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(count, thing) = self;
        let plural = if *count == 1 { "" } else { "s" };
        write!(f, "{count} {thing}{plural}")
    }
}

/// An address, in JSON a string `0x…`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Address(pub(crate) u64);

impl Serialize for Address {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&format_args!("{:#x}", self.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_thing_is_no_plural() {
        let counts = [0, 1, 2].map(|count| Count(count, "request").to_string());
        assert_eq!(counts, ["0 requests", "1 request", "2 requests"]);
    }

    #[test]
    fn numbers_and_sizes() {
        assert_eq!(number("0x80000000"), Ok(0x8000_0000));
        assert_eq!(size("64MiB"), Ok(64 << 20));
        assert_eq!(size("0x10KiB"), Ok(16 << 10));
        assert_eq!(size("4096"), Ok(4096));
        for wrong in ["", "0x", "-1", "+1", "1.5", "4KB", "KiB", "16777216TiB", "0x1g", "1 "] {
            assert!(size(wrong).is_err(), "{wrong}");
        }
        assert!(number("18446744073709551616").is_err());
    }
}
