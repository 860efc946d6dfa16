//! House rules that a machine can hold.

pub(crate) mod asm;
pub(crate) mod files;
pub(crate) mod instructions;
pub(crate) mod open_path;
pub(crate) mod unsafety;
