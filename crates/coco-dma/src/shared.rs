//! Shared memory as safe code may look at it: by copies.
//!
//! What the host can write never becomes a slice, a reference or a `Box`: those promise that
//! bytes stay as they are while one looks. [`SharedBytes`] promises nothing of the kind, and
//! hands out no reference. Copy once, then parse the copy.
// UNSAFETY: raw memory that a host or device writes behind the compiler's back.
#![expect(unsafe_code)]

use core::fmt;
use core::marker::PhantomData;
use core::ptr::NonNull;
use core::sync::atomic::Ordering;
use core::sync::atomic::fence;

use crate::copy::barrier;
use crate::copy::copy;
use crate::copy::zero;

/// A run of bytes that somebody else may read and write at any time: the host, a device. To hold
/// one says that the memory is there for `'a`; it says nothing about what is in it.
///
/// It is one thread's, like a `Cell`: several may look at the same bytes, none may be sent.
/// Nothing here blocks; any context.
#[derive(Clone, Copy)]
pub struct SharedBytes<'a> {
    start: NonNull<u8>,
    len: usize,
    life: PhantomData<&'a ()>,
}

/// An access that leaves the memory that it was meant for. Nothing was copied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OutOfBounds {
    /// Where the access starts, in bytes.
    pub offset: usize,
    /// How many bytes it is long.
    pub len: usize,
    /// How many bytes there are.
    pub size: usize,
}

impl OutOfBounds {
    /// Whether `len` bytes at `offset` lie in `size` bytes.
    pub(crate) const fn check(offset: usize, len: usize, size: usize) -> Result<(), Self> {
        match offset.checked_add(len) {
            Some(end) if end <= size => Ok(()),
            _ => Err(Self { offset, len, size }),
        }
    }
}

impl fmt::Display for OutOfBounds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { offset, len, size } = self;
        write!(f, "{len} bytes at offset {offset} do not lie in {size} bytes")
    }
}

impl core::error::Error for OutOfBounds {}

impl<'a> SharedBytes<'a> {
    /// The `len` bytes at `start`.
    ///
    /// # Safety
    ///
    /// 1. They are readable and writable for `'a`, and initialised.
    /// 2. For `'a` there is no reference to any of them.
    /// 3. For `'a` no other thread of this program uses them.
    pub const unsafe fn new(start: NonNull<u8>, len: usize) -> Self {
        Self { start, len, life: PhantomData }
    }

    /// How many bytes there are.
    #[inline]
    pub const fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    #[inline]
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The `len` bytes from `offset`.
    pub fn part(&self, offset: usize, len: usize) -> Result<Self, OutOfBounds> {
        Ok(Self { start: self.at(offset, len)?, len, life: PhantomData })
    }

    /// Copies the bytes at `offset` to `to`, all of it.
    pub fn read(&self, offset: usize, to: &mut [u8]) -> Result<(), OutOfBounds> {
        let from = self.at(offset, to.len())?;
        // SAFETY: `at` answers for the source, the reference for the destination; by condition 2
        // of `new` they do not overlap.
        unsafe { copy(from.as_ptr(), to.as_mut_ptr(), to.len()) };
        Ok(())
    }

    /// Copies `N` bytes at `offset` out.
    pub fn read_array<const N: usize>(&self, offset: usize) -> Result<[u8; N], OutOfBounds> {
        let mut bytes = [0; N];
        self.read(offset, &mut bytes)?;
        Ok(bytes)
    }

    /// Copies all of `from` to `offset`.
    pub fn write(&self, offset: usize, from: &[u8]) -> Result<(), OutOfBounds> {
        let to = self.at(offset, from.len())?;
        // SAFETY: as in `read`, the other way round.
        unsafe { copy(from.as_ptr(), to.as_ptr(), from.len()) };
        Ok(())
    }

    /// Zeroes `len` bytes at `offset`.
    pub fn zero(&self, offset: usize, len: usize) -> Result<(), OutOfBounds> {
        let to = self.at(offset, len)?;
        // SAFETY: `at` answers for the range.
        unsafe { zero(to.as_ptr(), len) };
        Ok(())
    }

    /// The pointer to `offset`, where `len` bytes from there lie inside.
    fn at(&self, offset: usize, len: usize) -> Result<NonNull<u8>, OutOfBounds> {
        OutOfBounds::check(offset, len, self.len)?;
        // SAFETY: `offset` is at most `self.len`, the size of one allocation by condition 1 of
        // `new`.
        Ok(unsafe { self.start.add(offset) })
    }
}

macro_rules! fields {
    ($($int:ident, $read:ident, $write:ident;)*) => {
        /// Fields of rings and registers, little-endian. One that is aligned for its type (and no
        /// wider than the machine's words) is read or written by one access, and comes out whole;
        /// others are copied byte by byte.
        impl SharedBytes<'_> {
            $(
                /// Reads the field at `offset`, in bytes. What is read later is not read before
                /// (acquire).
                pub fn $read(&self, offset: usize) -> Result<$int, OutOfBounds> {
                    let at = self.at(offset, size_of::<$int>())?.cast::<$int>();
                    let value = if at.is_aligned() {
                        // SAFETY: `at` answers for the range, the test for the alignment; any
                        // bytes are an integer.
                        $int::from_le(unsafe { at.read_volatile() })
                    } else {
                        $int::from_le_bytes(self.read_array(offset)?)
                    };
                    fence(Ordering::Acquire);
                    barrier(at.as_ptr().cast());
                    Ok(value)
                }

                /// Writes the field at `offset`, in bytes. What was written earlier is not written
                /// after (release).
                pub fn $write(&self, offset: usize, value: $int) -> Result<(), OutOfBounds> {
                    let at = self.at(offset, size_of::<$int>())?.cast::<$int>();
                    barrier(at.as_ptr().cast());
                    fence(Ordering::Release);
                    if !at.is_aligned() {
                        return self.write(offset, &value.to_le_bytes());
                    }
                    // SAFETY: as above.
                    unsafe { at.write_volatile(value.to_le()) };
                    Ok(())
                }
            )*
        }
    };
}

fields! {
    u16, read_u16_le, write_u16_le;
    u32, read_u32_le, write_u32_le;
    u64, read_u64_le, write_u64_le;
}

/// Where it lies and how long it is; never what is in it.
impl fmt::Debug for SharedBytes<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SharedBytes").field("start", &self.start).field("len", &self.len).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs `body` on `bytes` as shared memory.
    fn shared<R>(bytes: &mut [u8], body: impl FnOnce(SharedBytes<'_>) -> R) -> R {
        let bytes = NonNull::from(bytes);
        // SAFETY: the borrow lasts until the end of this function, and nothing else uses it.
        body(unsafe { SharedBytes::new(bytes.cast(), bytes.len()) })
    }

    #[test]
    fn bytes_go_in_and_out() {
        let mut memory = [7; 8];
        shared(&mut memory, |shared| {
            assert_eq!(shared.write(2, b"abc"), Ok(()));
            assert_eq!(shared.read_array(1), Ok(*b"\x07abc\x07"));
            assert_eq!(shared.zero(3, 2), Ok(()));
            let part = shared.part(2, 4).unwrap();
            assert_eq!((part.len(), part.is_empty()), (4, false));
            let mut out = [9; 4];
            assert_eq!(part.read(0, &mut out), Ok(()));
            assert_eq!(out, *b"a\0\0\x07");
        });
        assert_eq!(memory, *b"\x07\x07a\0\0\x07\x07\x07");
    }

    #[test]
    fn nothing_leaves_the_bounds() {
        let mut memory = [7; 8];
        shared(&mut memory, |shared| {
            for (offset, len) in [(8, 1), (0, 9), (7, 2), (usize::MAX, 1), (usize::MAX, 2)] {
                let wrong = OutOfBounds { offset, len, size: 8 };
                assert_eq!(shared.read(offset, &mut [1; 9][..len]), Err(wrong));
                assert_eq!(shared.write(offset, &[1; 9][..len]), Err(wrong));
                assert_eq!(shared.zero(offset, len), Err(wrong));
                assert_eq!(shared.part(offset, len).err(), Some(wrong));
            }
            assert_eq!(shared.read_u64_le(1), Err(OutOfBounds { offset: 1, len: 8, size: 8 }));
            assert_eq!(shared.write_u16_le(7, 1), Err(OutOfBounds { offset: 7, len: 2, size: 8 }));
            // A part is a bound of its own.
            let part = shared.part(2, 2).unwrap();
            assert!(part.read_array::<3>(0).is_err());
            // Nothing at the very end is inside.
            assert_eq!(shared.read(8, &mut []), Ok(()));
        });
        assert_eq!(memory, [7; 8]);
    }

    #[test]
    fn fields_are_little_endian_at_any_offset() {
        for offset in 0..8 {
            let mut memory = [0; 16];
            shared(&mut memory, |shared| {
                assert_eq!(shared.write_u64_le(offset, 0x0807_0605_0403_0201), Ok(()));
                assert_eq!(shared.read_array(offset), Ok([1, 2, 3, 4, 5, 6, 7, 8]));
                assert_eq!(shared.read_u64_le(offset), Ok(0x0807_0605_0403_0201));
                assert_eq!(shared.read_u32_le(offset + 1), Ok(0x0504_0302));
                assert_eq!(shared.read_u16_le(offset + 1), Ok(0x0302));
                assert_eq!(shared.write_u32_le(offset, 0xa1b2_c3d4), Ok(()));
                assert_eq!(shared.write_u16_le(offset + 4, 0xe5f6), Ok(()));
            });
            assert_eq!(
                memory[offset..offset + 8],
                [0xd4, 0xc3, 0xb2, 0xa1, 0xf6, 0xe5, 7, 8],
                "offset {offset}"
            );
        }
    }

    #[test]
    fn what_is_in_it_is_never_printed() {
        let mut memory = *b"secret";
        let start = memory.as_mut_ptr();
        let text = shared(&mut memory, |shared| std::format!("{shared:?}"));
        // All of the text: a search for the bytes' numbers finds them in some addresses.
        assert_eq!(text, std::format!("SharedBytes {{ start: {start:?}, len: 6 }}"));
    }
}
