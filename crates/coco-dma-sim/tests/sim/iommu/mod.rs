//! Devices behind an IOMMU: what they are given, what they see, what happens when it fails.

mod attacks;
mod coherent;
mod failures;
mod kept;
mod places;
mod rig;
mod streams;
