//! Images: how they are made and kept.
