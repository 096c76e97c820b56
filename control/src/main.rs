//! The one binary, `vxlane`.
fn main() {}
