//! What must hold of a house, one file for each kind of fault.

pub(crate) mod circle;
pub(crate) mod home;
pub(crate) mod order;
pub(crate) mod shape;
pub(crate) mod size;
