//! The server: API over what the engine does.
