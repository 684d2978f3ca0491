//! The core of gapless: it decides.
