//! The machines, held against what the platforms' documents say; and the layer on top of them.

#![expect(clippy::unwrap_used, reason = "a test stops where it fails")]

mod decorators;
mod devices;
mod iommu;
mod machines;
mod marker;
mod mistakes;
mod streams;
mod support;
