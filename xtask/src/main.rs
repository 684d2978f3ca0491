//! Tasks for the people who develop gapless.
fn main() {}
