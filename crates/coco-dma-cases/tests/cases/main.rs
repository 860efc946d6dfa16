//! The suite, the format, and what the two say when something is wrong.

mod broken;
mod ids;
mod made_wrong;
mod suite;
